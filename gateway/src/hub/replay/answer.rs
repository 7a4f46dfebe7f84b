//! History for those who ask for it as such, within the memory that all who read history share.

use super::{Replayer, budget::Share};
use crate::{
    broker::{Unavailable, log::Entry},
    channel::Channel,
    position::Position,
    sse::frame::Frame,
};
use std::time::Duration;

/// How much one answer holds, unless its first event is more.
const ANSWER_BYTES: usize = 4 << 20;
/// How long one may wait for memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// A piece of a channel's history, and the memory that it takes.
pub(crate) struct Answer {
    pub(crate) entries: Vec<Entry>,
    /// There was nothing more when this was read.
    pub(crate) complete: bool,
    pub(crate) share: Share,
}

pub(crate) enum NoAnswer {
    /// Others' pages take all the memory.
    NoRoom,
    Unavailable(Unavailable),
}

impl Replayer {
    /// Up to `most` entries after `after`: fewer where they are large.
    pub(crate) async fn history(&self, channel: &Channel, after: Position, most: usize) -> Result<Answer, NoAnswer> {
        let room = tokio::time::timeout(PATIENCE, self.budget.room(|| self.press())).await;
        let room = room.map_err(|_| NoAnswer::NoRoom)?;
        let (mut entries, mut bytes, mut complete, mut at) = (Vec::new(), 0, false, after);
        while !complete && bytes < ANSWER_BYTES && entries.len() < most {
            let count = self.page.entries.min(most - entries.len());
            let page = self.read_once(channel, at, 0, count).await.map_err(NoAnswer::Unavailable)?;
            complete = page.complete;
            for entry in page.entries {
                // The first goes in any case, so that each answer leads on.
                let weight = Frame::weight_of(entry.event.len());
                if bytes > 0 && bytes + weight > ANSWER_BYTES {
                    complete = false;
                    bytes = ANSWER_BYTES;
                    break;
                }
                bytes += weight;
                at = entry.at;
                entries.push(entry);
            }
        }
        Ok(Answer { entries, complete, share: self.budget.share(room, bytes) })
    }
}
