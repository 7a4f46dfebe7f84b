//! Whatever is announced, a feed goes on; whatever replicas say to each other is read as it was written.

use super::{
    cluster,
    feed::{Feed, Need, Outlets, Repaired},
    recent::Keeping,
};
use crate::{
    broker::{
        announcement::Announced,
        log::{Entry, Page},
    },
    channel::Channel,
    position::Position,
};

/// A message between replicas.
pub(crate) fn control(payload: &[u8]) {
    if let Some(again) = cluster::written_again(payload) {
        assert_eq!(cluster::written_again(&again).as_ref(), Some(&again), "what is read and written is read again");
    }
}

/// An announcement on a channel that stands before it, behind it, far off, or nowhere; and in its log the same entry.
pub(crate) fn announced(announced: &Announced) {
    let outlets = Outlets { queues: &[], overflowed: &|_, _| {}, asleep: &|_| {}, tail_bytes: 1000 };
    let (at, prev) = match announced {
        Announced::Entry { at, prev, .. } => (*at, *prev),
        _ => (Position::new(5, 5), 4),
    };
    let before = Position::new(prev, at.seq.saturating_sub(1));
    for top in [None, Some(Position::default()), Some(before), Some(at), Some(Position::new(u64::MAX, u64::MAX))] {
        let mut feed = Feed::new(Channel::new("a.b").expect("a name"), None, Keeping::default());
        feed.joined(top, &outlets);
        let need = feed.announced(announced.clone(), &outlets);
        if top == Some(before) && matches!(announced, Announced::Entry { .. }) && before.is_followed_by(at, prev) {
            assert_eq!((need, feed.last()), (Need::Nothing, at), "what follows is passed on");
        }
        if let (Need::Repair(_) | Need::LookAgain, Announced::Entry { event, .. }) = (need, announced) {
            let entries = vec![Entry { at, prev, event: event.clone(), fork: None }];
            let page = Page { entries, last: at, complete: true };
            let end = feed.repaired(&page, true, &outlets);
            assert!(
                matches!(end, Repaired::ReadOn) || feed.last() == at || matches!(end, Repaired::Forked(_)),
                "{end:?}"
            );
        }
    }
}
