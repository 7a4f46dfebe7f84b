//! Everything that ends in an HTTP answer: the public port, and the admin port beside it.
//!
//! [`accept`] takes connections in, [`arrival`] makes them secure, [`brief`] reads requests that come in one piece,
//! [`connection`] has hyper read all others, [`route`] sends each to its handler. Only `GET /events` outlives its answer:
//! on HTTP/1.1 its socket goes to a shard.

pub mod accept;
pub mod admin;
mod arrival;
mod asked;
mod bare_refusal;
mod begun;
mod body;
mod brief;
mod caller;
mod connection;
mod console;
mod cors;
mod counts;
mod credentials;
mod head_clock;
mod head_size;
mod history;
mod incoming_body;
mod negotiate;
mod pending;
mod poll;
pub mod problem;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod publish;
mod query;
mod rates;
mod raw;
mod route;
mod subscribe;

use crate::{
    auth::Auth, broker::Broker, config::Config, edge::tls::Tls, hub::Hub, lifecycle::Lifecycle, metrics::Metrics,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize},
};

/// What every request handler needs.
pub struct App {
    pub config: Arc<Config>,
    pub auth: Auth,
    pub hub: Arc<Hub>,
    pub broker: Arc<dyn Broker>,
    pub metrics: Arc<Metrics>,
    /// What connections of the public port are made secure with.
    pub tls: Option<Arc<Tls>>,
    pub lifecycle: Lifecycle,
    /// Requests whose answer is not complete, streams aside: a stop waits for them.
    pub in_flight: AtomicUsize,
    connection_ids: AtomicU64,
    pending: Arc<pending::Pending>,
    bodies: incoming_body::Memory,
    rates: Arc<rates::Rates>,
}

impl App {
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        auth: Auth,
        hub: Arc<Hub>,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let (in_flight, connection_ids) = (AtomicUsize::new(0), AtomicU64::new(0));
        let rates = rates::Rates::new(&config.limits);
        let pending = pending::Pending::new(config.limits.pending, Arc::clone(&metrics));
        let bodies = incoming_body::Memory::new(config.limits.body_bytes.get());
        Self {
            rates,
            pending,
            bodies,
            config,
            auth,
            hub,
            broker,
            metrics,
            tls,
            lifecycle: Lifecycle::default(),
            in_flight,
            connection_ids,
        }
    }

    /// Why the broker cannot be reached, if that has been so for longer than is waited for.
    fn broker_away(&self) -> Option<String> {
        let away = self.hub.reachable().err()?;
        (!away.was_reached || away.since.elapsed() >= self.config.redis.grace).then_some(away.why)
    }

    /// Connections that have sent no whole request yet, those aside that only may send another.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.pending.unfinished()
    }

    /// An id for a new stream, unique in the cluster: this replica's, and a count.
    fn connection_id(&self) -> Arc<str> {
        let count = self.connection_ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{}-{count:x}", self.hub.cluster().replica()).into()
    }
}
