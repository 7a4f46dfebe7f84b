//! What Sluice promises, tried from outside with real processes. Each test is named by its promise.
//!
//! `auth_*` modules try who may do what; `one_*` modules run one gateway with the embedded broker; `cluster_*` modules run several with a Redis, behind nginx;
//! `resume_*` and `chaos_*` modules try the promise that nothing is lost and nothing doubled.

mod auth_jwks;
mod auth_keys;
mod auth_lifetime;
mod auth_rules;
mod auth_tokens;
mod browser;
mod browser_compression;
mod chaos_checker;
mod chaos_exact_resume;
mod chaos_lost_history;
mod cluster_compression;
mod cluster_counts;
mod cluster_first_id;
mod cluster_nginx;
mod cluster_publishing;
mod cluster_redis_away;
mod cluster_replica_killed;
mod cluster_subscriptions;
mod dependencies;
mod one_admin;
mod one_compression;
mod one_compression_cost;
mod one_crowd;
mod one_formats;
mod one_heartbeat;
mod one_http2;
mod one_independent;
mod one_memory;
mod one_publish;
mod one_refusals;
mod one_settings;
mod one_slow;
mod one_stop;
mod one_stream;
mod readme;
mod resume_answers;
mod resume_clocks;
mod resume_cursor;
mod resume_nginx;
mod resume_publish;
mod resume_replay;
mod resume_rules;
mod resume_since;
mod resume_tail;
