//! Pages of a channel's history, and the one question asked of them: does what they hold go on from where a client
//! stood?

use crate::{event::Event, position::Position};

/// One entry of a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Position,
    /// The time of the entry before.
    pub prev: u64,
    pub event: Event,
    /// Set on the entry that a replica writes when it finds that the history before it is not the one that some have
    /// seen: the last position that both had.
    pub fork: Option<Position>,
}

/// A run of entries as it was read in one step, and the top at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The last position ever given when this was read.
    pub last: Position,
    /// Nothing followed the last of `entries`.
    pub complete: bool,
}

/// Where a position stands to a run of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// The history goes on without a break at this index (perhaps one past the end).
    At(usize),
    /// The run begins after the position; older entries may tell more.
    Before,
    /// Another entry stands where this one should.
    Forked,
    /// The position lies beyond the run.
    Beyond,
}

/// What [`locate`] needs of an entry: its position and the time of the one before.
pub trait Link {
    fn link(&self) -> (Position, u64);
}

impl Link for Entry {
    fn link(&self) -> (Position, u64) {
        (self.at, self.prev)
    }
}

/// Finds where a client that stood at `place` goes on in `run`, whose numbers rise without holes.
pub fn locate<L: Link>(run: &[L], place: Position) -> Located {
    let (Some(first), Some(last)) = (run.first().map(Link::link), run.last().map(Link::link)) else {
        return Located::Beyond;
    };
    // A client may say that it stands at the highest number there is: nothing is after that.
    let next = place.seq.saturating_add(1);
    if next < first.0.seq {
        return Located::Before;
    }
    if next == first.0.seq && place.seq != next {
        return if place.micros == first.1 { Located::At(0) } else { Located::Forked };
    }
    if place.seq > last.0.seq {
        return Located::Beyond;
    }
    let index = run.partition_point(|entry| entry.link().0.seq < place.seq);
    match run.get(index) {
        Some(entry) if entry.link().0 == place => Located::At(index + 1),
        _ => Located::Forked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain(u64, u64, u64);
    impl Link for Plain {
        fn link(&self) -> (Position, u64) {
            (Position::new(self.0, self.1), self.2)
        }
    }

    #[test]
    fn a_place_is_found_by_number_and_time() {
        let run = [Plain(30, 3, 20), Plain(40, 4, 30), Plain(50, 5, 40)];
        assert_eq!(locate(&run, Position::new(10, 1)), Located::Before);
        assert_eq!(locate(&run, Position::new(20, 2)), Located::At(0));
        assert_eq!(locate(&run, Position::new(21, 2)), Located::Forked);
        assert_eq!(locate(&run, Position::new(40, 4)), Located::At(2));
        assert_eq!(locate(&run, Position::new(41, 4)), Located::Forked);
        assert_eq!(locate(&run, Position::new(50, 5)), Located::At(3));
        assert_eq!(locate(&run, Position::new(60, 6)), Located::Beyond);
        assert_eq!(locate(&run, Position::new(60, u64::MAX)), Located::Beyond);
        assert_eq!(locate::<Plain>(&[], Position::new(60, 6)), Located::Beyond);
    }
}
