//! How often one address, one subject or one channel may connect or be published to.
//!
//! What is remembered of a key is forgotten once it would be let in as if it had never been seen, and so many keys are
//! remembered and no more, so that many keys do not add up.

use super::{App, caller::Caller, problem::Problem};
use crate::{
    channel::Channel,
    config::{Limits, Rate},
    hub::counted_address,
};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use std::{
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

/// How often what is not needed is forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Keys of one kind that are told apart at a time, some 3 MB of them.
const MOST_KEYS: usize = 100_000;
/// While there are as many, further ones are limited together, in so many groups by chance.
const GROUPS: u64 = 1024;

/// One rate for each key by itself. A key is remembered by its hash, so that long ones cost no more; which hash is this
/// process's secret, so that nobody can choose whose key his own collides with.
struct Keyed<K> {
    limiter: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
    keys: PhantomData<fn(&K)>,
}

impl<K: Hash> Keyed<K> {
    fn new(rate: Rate) -> Option<Self> {
        let quota = Quota::with_period(rate.period())?.allow_burst(rate.burst);
        let limiter = DefaultKeyedRateLimiter::keyed(quota);
        Some(Self { limiter, hasher: RandomState::new(), keys: PhantomData })
    }

    /// # Errors
    /// How long to wait.
    fn check(&self, key: &K) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(key);
        let key = if self.limiter.len() < MOST_KEYS { hash } else { hash % GROUPS };
        self.limiter.check_key(&key).map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// All rates that are limited.
pub(super) struct Rates {
    connect_address: Option<Keyed<IpAddr>>,
    connect_subject: Option<Keyed<Arc<str>>>,
    publish_address: Option<Keyed<IpAddr>>,
    publish_subject: Option<Keyed<Arc<str>>>,
    publish_channel: Option<Keyed<Channel>>,
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let rates = Arc::new(Self {
            connect_address: limits.connect_rate_per_address.and_then(Keyed::new),
            connect_subject: limits.connect_rate_per_subject.and_then(Keyed::new),
            publish_address: limits.publish_rate_per_address.and_then(Keyed::new),
            publish_subject: limits.publish_rate_per_subject.and_then(Keyed::new),
            publish_channel: limits.publish_rate_per_channel.and_then(Keyed::new),
        });
        tokio::spawn(tidy(Arc::downgrade(&rates)));
        rates
    }

    fn tidy(&self) {
        self.connect_address.iter().for_each(Keyed::tidy);
        self.connect_subject.iter().for_each(Keyed::tidy);
        self.publish_address.iter().for_each(Keyed::tidy);
        self.publish_subject.iter().for_each(Keyed::tidy);
        self.publish_channel.iter().for_each(Keyed::tidy);
    }
}

async fn tidy(rates: Weak<Rates>) {
    while let Some(rates) = rates.upgrade() {
        rates.tidy();
        drop(rates);
        tokio::time::sleep(TIDY_EVERY).await;
    }
}

/// Whose rate it is that is exceeded, and the wait until it is not.
type Exceeded = (&'static str, Duration);

fn check<K: Hash>(whose: &'static str, rate: Option<&Keyed<K>>, key: Option<K>) -> Result<(), Exceeded> {
    match (rate, key) {
        (Some(rate), Some(key)) => rate.check(&key).map_err(|wait| (whose, wait)),
        _ => Ok(()),
    }
}

fn problem(what: &str, (whose, wait): Exceeded) -> Problem {
    Problem::too_many(format!("this {whose} {what} more often than it may; wait as long as `Retry-After` says"), wait)
}

/// Counts a request for a stream.
///
/// # Errors
/// When its address or subject has made too many.
pub(super) fn connect(app: &App, caller: &Caller) -> Result<(), Problem> {
    let rates = &app.rates;
    check("address", rates.connect_address.as_ref(), Some(counted_address(caller.address)))
        .and_then(|()| check("subject", rates.connect_subject.as_ref(), caller.identity.subject.clone()))
        .map_err(|exceeded| {
            app.metrics.refused.with_label_values(&["rate"]).inc();
            problem("connects", exceeded)
        })
}

/// Counts a request that publishes.
///
/// # Errors
/// When its address or publisher has made too many.
pub(super) fn publish(app: &App, caller: &Caller) -> Result<(), Problem> {
    let rates = &app.rates;
    let publisher = caller.identity.subject.clone().or_else(|| caller.identity.api_key.clone());
    check("address", rates.publish_address.as_ref(), Some(counted_address(caller.address)))
        .and_then(|()| check("subject", rates.publish_subject.as_ref(), publisher))
        .map_err(|exceeded| refused(app, exceeded))
}

/// Counts an event.
///
/// # Errors
/// When its channel has had too many.
pub(super) fn event(app: &App, channel: &Channel) -> Result<(), Problem> {
    let Some(rate) = &app.rates.publish_channel else { return Ok(()) };
    rate.check(channel).map_err(|wait| refused(app, ("channel", wait)))
}

fn refused(app: &App, exceeded: Exceeded) -> Problem {
    app.metrics.publish_refused.with_label_values(&[exceeded.0]).inc();
    problem("is published to", exceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn once_in(period: Duration) -> Keyed<u32> {
        let quota = Quota::with_period(period).expect("not zero").allow_burst(NonZeroU32::MIN);
        Keyed { limiter: DefaultKeyedRateLimiter::keyed(quota), hasher: RandomState::new(), keys: PhantomData }
    }

    #[test]
    fn however_many_keys_come_only_so_many_are_remembered_and_all_are_limited() {
        let rate = once_in(Duration::from_secs(3600));
        let most = u32::try_from(MOST_KEYS).expect("small");
        assert!((0..most).all(|key| rate.check(&key).is_ok()));
        let refused = (most..2 * most).filter(|key| rate.check(key).is_err()).count();
        assert!(rate.limiter.len() <= MOST_KEYS + GROUPS as usize, "{}", rate.limiter.len());
        assert!(refused >= MOST_KEYS - GROUPS as usize, "{refused}");
    }

    #[test]
    fn keys_are_forgotten_when_they_could_come_again() {
        let rate = once_in(Duration::from_millis(10));
        assert!((0..1000).all(|key| rate.check(&key).is_ok()));
        let begun = std::time::Instant::now();
        while !rate.limiter.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} are left", rate.limiter.len());
            rate.tidy();
        }
    }
}
