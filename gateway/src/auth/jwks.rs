//! The keys of an issuer that publishes them at an address (JWKS, RFC 7517): fetched, kept, and fetched again.
//!
//! What was fetched once is kept however long the issuer is away. A token that names a key that is not here has them
//! fetched again, but not more often than [`auth.jwks_cooldown`](crate::config::Auth), whatever clients send.

use super::key::InvalidKey;
use crate::{
    config::{Algorithm, Auth},
    metrics::Metrics,
};
use jsonwebtoken::{
    DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

const TIMEOUT: Duration = Duration::from_secs(5);
/// A set of keys is a few KiB.
const MAX_BYTES: usize = 1 << 20;
/// Keys that a token without `kid` is tried against.
const MAX_KEYS: usize = 64;

pub(super) struct JwksKey {
    alg: Algorithm,
    cooldown: Duration,
    state: RwLock<State>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// `None` before the first that came.
    keys: Option<Vec<(Option<String>, DecodingKey)>>,
    /// When fetching last ended, well or not.
    tried_at: Option<Instant>,
    fetching: bool,
}

impl JwksKey {
    pub(super) fn start(url: &str, alg: Algorithm, settings: &Auth, metrics: Arc<Metrics>) -> Arc<Self> {
        let (cooldown, refresh) = (settings.jwks_cooldown, settings.jwks_refresh);
        let key = Arc::new(Self { alg, cooldown, state: RwLock::default(), wanted: Notify::new() });
        tokio::spawn(keep_fresh(Arc::downgrade(&key), url.to_owned(), refresh, metrics));
        key
    }

    /// The keys that a token with this key id may be signed with; `None` if that cannot be known yet, because they are
    /// being fetched, or are about to be.
    pub(super) fn known(&self, kid: Option<&str>) -> Option<Vec<DecodingKey>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let keys = state.keys.as_ref()?;
        let may_be = |id: &Option<String>| match (id.as_deref(), kid) {
            (Some(id), Some(kid)) => id == kid,
            _ => true,
        };
        let known: Vec<_> = keys.iter().filter(|(id, _)| may_be(id)).map(|(_, key)| key.clone()).collect();
        if !known.is_empty() {
            return Some(known);
        }
        if state.fetching || state.tried_at.is_none_or(|tried| tried.elapsed() >= self.cooldown) {
            self.wanted.notify_one();
            return None;
        }
        Some(known)
    }

    fn begin(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).fetching = true;
    }

    fn end(&self, fetched: Result<Vec<(Option<String>, DecodingKey)>, InvalidKey>) -> Result<usize, InvalidKey> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.fetching = false;
        state.tried_at = Some(Instant::now());
        let keys = fetched?;
        let count = keys.len();
        state.keys = Some(keys);
        Ok(count)
    }
}

async fn keep_fresh(key: Weak<JwksKey>, url: String, refresh: Duration, metrics: Arc<Metrics>) {
    // No redirects: what is configured is trusted, and nothing that it points to.
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "keys cannot be fetched: no HTTP client can be made"),
    };
    let mut failures: u32 = 0;
    loop {
        let Some(held) = key.upgrade() else { return };
        held.begin();
        let ended = held.end(fetch(&client, &url, held.alg).await);
        let mut pause = refresh;
        match ended {
            Ok(count) => {
                metrics.jwks_fetches.with_label_values(&["ok"]).inc();
                tracing::debug!(url, count, "an issuer's keys were fetched");
                failures = 0;
            }
            Err(error) => {
                metrics.jwks_fetches.with_label_values(&["failed"]).inc();
                tracing::warn!(url, %error, "an issuer's keys cannot be fetched; those that are known hold");
                // Soon at first, then as seldom as if all were well; by chance, so that replicas do not keep step.
                let soon = Duration::from_secs(1 << failures.min(6)).min(refresh);
                pause = soon.mul_f64(0.5 + fastrand::f64() / 2.0);
                failures += 1;
            }
        }
        let cooldown = held.cooldown;
        let asked = {
            let held = Arc::clone(&held);
            async move { held.wanted.notified().await }
        };
        drop(held);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = asked => tokio::time::sleep(cooldown.min(Duration::from_millis(100))).await,
        }
    }
}

async fn fetch(
    client: &reqwest::Client,
    url: &str,
    alg: Algorithm,
) -> Result<Vec<(Option<String>, DecodingKey)>, InvalidKey> {
    let failed = |error: reqwest::Error| InvalidKey::new(error.without_url().to_string());
    let mut answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    if !answer.status().is_success() {
        return Err(InvalidKey::new(format!("the answer is {}", answer.status())));
    }
    let mut body = Vec::new();
    while let Some(bytes) = answer.chunk().await.map_err(failed)? {
        body.extend_from_slice(&bytes);
        if body.len() > MAX_BYTES {
            return Err(InvalidKey::new(format!("the answer has more than {MAX_BYTES} bytes")));
        }
    }
    read(&body, alg)
}

/// The keys of a set that signatures of this algorithm may be of.
fn read(body: &[u8], alg: Algorithm) -> Result<Vec<(Option<String>, DecodingKey)>, InvalidKey> {
    // One by one: a key of a kind that nobody here knows must not cost the others.
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(body).map_err(|error| InvalidKey::new(format!("no set of keys: {error}")))?;
    let jwks = JwkSet { keys: set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect() };
    let keys: Vec<_> = jwks.keys.iter().filter_map(|jwk| usable(jwk, alg)).take(MAX_KEYS).collect();
    if keys.is_empty() {
        return Err(InvalidKey::new(format!("there is no key for {alg} in it")));
    }
    Ok(keys)
}

fn usable(jwk: &Jwk, alg: Algorithm) -> Option<(Option<String>, DecodingKey)> {
    let wanted = jsonwebtoken::Algorithm::from(alg);
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let says_so = jwk.common.key_algorithm.as_ref().is_none_or(|named| named.to_string() == alg.to_string());
    let key = DecodingKey::from_jwk(jwk).ok()?;
    // A secret that is published is none.
    (signs && says_so && key.family() == wanted.family() && !alg.is_symmetric())
        .then(|| (jwk.common.key_id.clone(), key))
}
