//! Letting streams in, as many as the replica has room for, and as many as one address or one subject may have.
//!
//! A stream that is open is never closed for a new one. What is counted is given back when the [`Permit`] goes, however
//! the stream ends.

use super::{Hub, lock};
use crate::channel::Channel;
use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Who wants a stream.
#[derive(Clone, Debug)]
pub struct Guest {
    pub address: IpAddr,
    pub subject: Option<Arc<str>>,
}

/// Streams by address and by subject, as far as these are limited.
#[derive(Debug, Default)]
pub(super) struct Guests {
    by_address: Mutex<HashMap<IpAddr, usize>>,
    by_subject: Mutex<HashMap<Arc<str>, usize>>,
}

/// Counts one open stream for as long as it lives.
pub struct Permit {
    hub: Weak<Hub>,
    guest: Option<Box<Guest>>,
    /// Given back before its time.
    returned: Option<Arc<AtomicBool>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.returned.as_ref().is_none_or(|returned| !returned.swap(true, Ordering::AcqRel)) {
            leave(&self.hub, self.guest.as_deref());
        }
    }
}

fn leave(hub: &Weak<Hub>, guest: Option<&Guest>) {
    if let Some(hub) = hub.upgrade() {
        if let Some(guest) = guest {
            hub.guests.leave(guest, &hub.config.limits);
        }
        hub.connections.fetch_sub(1, Ordering::AcqRel);
        hub.metrics.connections_active.dec();
    }
}

/// Gives a [`Permit`] back, wherever it is, when dropped.
pub struct Return {
    hub: Weak<Hub>,
    guest: Option<Box<Guest>>,
    returned: Arc<AtomicBool>,
}

impl Drop for Return {
    fn drop(&mut self) {
        if !self.returned.swap(true, Ordering::AcqRel) {
            leave(&self.hub, self.guest.as_deref());
        }
    }
}

impl Permit {
    /// What gives this permit back, though the shard may not have noticed yet that the stream has ended.
    pub fn returned_by(&mut self) -> Return {
        let returned = Arc::clone(self.returned.get_or_insert_default());
        Return { hub: Weak::clone(&self.hub), guest: self.guest.clone(), returned }
    }
}

/// Why a stream is not let in just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this replica has as many connections as `limits.connections` allows")]
    Connections,
    #[error("this replica has as many channels as `limits.channels` allows")]
    Channels,
    #[error("this replica is being stopped")]
    Draining,
    #[error("this address has as many connections as one may have")]
    Address,
    #[error("this subject has as many connections as one may have")]
    Subject,
}

impl Refused {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Channels => "channels",
            Self::Draining => "draining",
            Self::Address => "address",
            Self::Subject => "subject",
        }
    }

    /// Whether it is the client that has too many, and not the replica.
    #[must_use]
    pub const fn is_the_clients(self) -> bool {
        matches!(self, Self::Address | Self::Subject)
    }
}

/// Who is counted as one: of IPv6, the 64 bits that a host's network has, as the other 64 are the host's to choose.
#[must_use]
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        v4 => v4,
    }
}

impl Guests {
    fn enter(&self, guest: &Guest, limits: &crate::config::Limits) -> Result<(), Refused> {
        if let Some(most) = limits.connections_per_address {
            count(&self.by_address, counted_address(guest.address), most).map_err(|()| Refused::Address)?;
        }
        if let (Some(most), Some(subject)) = (limits.connections_per_subject, &guest.subject)
            && count(&self.by_subject, Arc::clone(subject), most).is_err()
        {
            if limits.connections_per_address.is_some() {
                uncount(&self.by_address, &counted_address(guest.address));
            }
            return Err(Refused::Subject);
        }
        Ok(())
    }

    fn leave(&self, guest: &Guest, limits: &crate::config::Limits) {
        if limits.connections_per_address.is_some() {
            uncount(&self.by_address, &counted_address(guest.address));
        }
        if let (Some(_), Some(subject)) = (limits.connections_per_subject, &guest.subject) {
            uncount(&self.by_subject, subject);
        }
    }
}

fn count<K: Hash + Eq>(counts: &Mutex<HashMap<K, usize>>, key: K, most: usize) -> Result<(), ()> {
    let mut counts = lock(counts);
    let open = counts.entry(key).or_default();
    if *open >= most {
        return Err(());
    }
    *open += 1;
    Ok(())
}

fn uncount<K: Hash + Eq>(counts: &Mutex<HashMap<K, usize>>, key: &K) {
    let mut counts = lock(counts);
    if let Some(open) = counts.get_mut(key) {
        *open -= 1;
        if *open == 0 {
            counts.remove(key);
        }
    }
}

impl Hub {
    /// Counts a stream of these channels in, or says why it must wait.
    ///
    /// # Errors
    /// When the replica is full or stopping, or the guest has as many as it may have.
    pub fn admit<'a>(
        &self,
        guest: Guest,
        channels: impl Iterator<Item = &'a Channel> + Clone,
    ) -> Result<Permit, Refused> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Refused::Draining);
        }
        let limit = self.config.limits.connections;
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1))
            .map_err(|_| Refused::Connections)?;
        if let Err(refused) = self.guests.enter(&guest, &self.config.limits) {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(refused);
        }
        self.metrics.connections_active.inc();
        let limits = &self.config.limits;
        let is_counted = limits.connections_per_address.is_some() || limits.connections_per_subject.is_some();
        let permit =
            Permit { hub: Weak::clone(&self.this), guest: is_counted.then(|| Box::new(guest)), returned: None };
        // Last, as it leaves something behind: whoever is refused for another reason has no channels made.
        self.make_room_for(channels)?;
        self.metrics.connections.inc();
        Ok(permit)
    }

    /// Makes the feeds of these channels, all or none. A shard would make them too, but later: of many requests at a
    /// time, each would still see room. Those that no shard comes for go as lingering ones do.
    fn make_room_for<'a>(&self, channels: impl Iterator<Item = &'a Channel> + Clone) -> Result<(), Refused> {
        {
            let feeds = self.read_feeds();
            // Channels that are here already cost nothing more.
            if channels.clone().all(|channel| feeds.contains_key(channel)) {
                return Ok(());
            }
        }
        let mut feeds = self.write_feeds();
        let new: Vec<_> = channels.filter(|channel| !feeds.contains_key(*channel)).collect();
        if !new.is_empty() && feeds.len() + new.len() > self.config.limits.channels {
            return Err(Refused::Channels);
        }
        for channel in new {
            lock(self.feed_in(&mut feeds, channel)).idle_since = Some(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn what_is_counted_is_given_back_and_what_is_refused_is_not_counted() {
        let guests = Guests::default();
        let limits = Limits { connections_per_address: Some(3), connections_per_subject: Some(1), ..Limits::default() };
        let guest = |address: &str, subject: &str| Guest {
            address: address.parse().expect("an address"),
            subject: Some(subject.into()),
        };
        let (ann, bob) = (guest("10.0.0.1", "ann"), guest("10.0.0.1", "bob"));
        assert_eq!(guests.enter(&ann, &limits), Ok(()));
        assert_eq!(guests.enter(&ann, &limits), Err(Refused::Subject));
        assert_eq!(guests.enter(&bob, &limits), Ok(()));
        assert_eq!(guests.enter(&guest("10.0.0.1", "eve"), &limits), Ok(()));
        assert_eq!(guests.enter(&guest("10.0.0.1", "dan"), &limits), Err(Refused::Address));
        guests.leave(&ann, &limits);
        assert_eq!(guests.enter(&ann, &limits), Ok(()), "what was refused took no place");
        for guest in [ann, bob, guest("10.0.0.1", "eve")] {
            guests.leave(&guest, &limits);
        }
        assert!(lock(&guests.by_address).is_empty() && lock(&guests.by_subject).is_empty(), "nothing is left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_guest() {
        let counted = |text: &str| counted_address(text.parse().expect("an address")).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("10.1.2.3"), "10.1.2.3");
    }
}
