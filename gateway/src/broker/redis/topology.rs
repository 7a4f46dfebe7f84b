//! Which masters there are, and which slots each of them has, watched for as long as anybody wants to know.
//!
//! One server is known from the start. Sentinels say where their master is, a cluster's masters who has which slots; both
//! are asked every second, at once when somebody found the answer out of date, and sentinels also tell by themselves.
//! Where several answers differ, the one of the latest configuration epoch holds: a part of the network that was cut off
//! goes on believing an older one.

mod cluster;
mod sentinel;

use super::target::{Address, Target, Topology};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16384;
/// How often servers are asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a server may take to say what it knows: one that is frozen must not keep the others from being heard.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How soon they are asked again after one did not answer, as it may be about to be replaced.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(150);
/// Not more often than this, whoever finds answers out of date.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// The masters, in order of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) masters: Vec<Master>,
    /// Channels and keys are spread over the masters by slot.
    pub(super) cluster: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    /// `None` for the one server that is configured.
    pub(super) address: Option<Address>,
    pub(super) slots: Vec<RangeInclusive<u16>>,
    /// Those that are on their way to or from another master.
    pub(super) moving: Vec<u16>,
}

impl Master {
    fn of_all(address: Option<Address>) -> Self {
        Self { address, slots: vec![0..=SLOTS - 1], moving: Vec::new() }
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.iter().map(|range| usize::from(range.end() - range.start()) + 1).sum()
    }
}

/// The layout, or why none is known yet. One that was known stays until there is a newer one.
pub(super) type Known = Result<Layout, String>;

/// Asks for a look at the servers, now and not only at the next turn.
pub(super) type Refresh = Arc<Notify>;

/// Starts watching. Ends when the receiver is gone.
pub(super) fn watch(target: &Target, timeout: Duration, refresh: Refresh) -> watch::Receiver<Known> {
    let (known, watched) = watch::channel(Err("no server was asked yet".to_owned()));
    match &target.topology {
        Topology::One => {
            drop(known.send_replace(Ok(Layout { masters: vec![Master::of_all(None)], cluster: false })));
            // There is nothing more to say, and it is said for as long as anybody listens.
            tokio::spawn(async move { known.closed().await });
        }
        Topology::Sentinels { at, master } => {
            tokio::spawn(sentinel::watch(at.clone(), master.clone(), timeout, refresh, known));
        }
        Topology::Cluster { seeds } => {
            tokio::spawn(cluster::watch(target.clone(), seeds.clone(), timeout, refresh, known));
        }
    }
    watched
}

/// Takes what is known now, if it is new.
fn tell(known: &watch::Sender<Known>, now: Known) {
    known.send_if_modified(|before| {
        // An answer that was had is better than none.
        let changed = *before != now && !(before.is_ok() && now.is_err());
        if changed {
            *before = now;
        }
        changed
    });
}

/// Until it is time to look again.
async fn pause(refresh: &Notify, all_answered: bool) {
    let longest = if all_answered { LOOK_EVERY } else { LOOK_AGAIN_AFTER };
    let early = async {
        refresh.notified().await;
        tokio::time::sleep(AT_MOST_EVERY).await;
    };
    let _ = tokio::time::timeout(longest, early).await;
}

/// The slot of a key or of a sharded pub/sub channel: that of its hash tag, if it has one.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|&byte| byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster() {
        // As CLUSTER KEYSLOT answers.
        for (key, expected) in [("123456789", 12739), ("foo", 12182), ("{foo}bar", 12182), ("a{foo}", 12182)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{}foo"), crc16::State::<crc16::XMODEM>::calculate(b"{}foo") % SLOTS);
        assert_eq!(slot(b"sluice:log:{sluice:news}"), slot(b"sluice:news"));
    }
}
