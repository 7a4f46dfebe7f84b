//! What is written to one connection alone, in its encoding: independent blocks, after which it is in step with no chain.

use super::*;
use crate::sse::compress::{self, Encoding, Part, Sum, Wire};
use bytes::Bytes;

/// No channel.
const NONE: u32 = u32::MAX;
/// More frames than this are compressed together; of fewer, the blocks that others are sent as well are as good.
const APART: usize = 4;

/// How far a connection's stream is compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The channel whose chain the connection is in step with: it was sent a keyframe of it and every block since, and
    /// nothing else.
    in_step_with: u32,
    /// Of all that was written, for the end of a gzip stream.
    sum: Sum,
}

impl Default for Stream {
    fn default() -> Self {
        Self { in_step_with: NONE, sum: Sum::default() }
    }
}

impl Stream {
    pub(super) fn is_in_step_with(&self, channel: u32) -> bool {
        self.in_step_with == channel
    }

    /// Goes on with a batch of this channel.
    pub(super) fn go_on(&mut self, channel: u32, batch: &super::batch::Batch) {
        self.in_step_with = if batch.in_step { channel } else { NONE };
        if let Some(part) = &batch.sum {
            self.sum.add(part);
        }
    }

    /// What follows is not what comes next in the chain.
    pub(super) fn leave_chain(&mut self) {
        self.in_step_with = NONE;
    }

    /// Appends what it ends with.
    pub(super) fn close(&self, encoding: Encoding, into: &mut Vec<u8>) {
        compress::close(encoding, self.sum, into);
    }

    /// Goes on with bytes for this connection alone.
    pub(super) fn diverge(&mut self, encoding: Encoding, plain: &[u8]) {
        self.leave_chain();
        if encoding == Encoding::Gzip {
            self.sum.add(&Part::of([plain]));
        }
    }
}

/// A frame that a connection is about to be sent, with the id that it has for this connection alone.
pub(super) struct Sent {
    pub(super) frame: Arc<Frame>,
    pub(super) own_id: Option<String>,
}

impl Shard {
    /// Appends what a connection's stream begins with.
    pub(super) fn open_stream(&self, wire: Wire, into: &mut Vec<u8>) {
        compress::open(wire.encoding(), into);
    }

    /// Appends what it ends with.
    pub(super) fn close_stream(&self, key: Key, wire: Wire, into: &mut Vec<u8>) {
        self.streams[key.index as usize].close(wire.encoding(), into);
    }

    /// Appends a text of the gateway's own. These are short.
    pub(super) fn encode_text(&mut self, key: Key, wire: Wire, text: &[u8], into: &mut Vec<u8>) {
        let before = into.len();
        compress::literal(wire.encoding(), text, into);
        self.encoded(key, wire, text, into.len() - before);
    }

    /// Frames that others are sent as well.
    pub(super) fn encode_run(&mut self, key: Key, wire: Wire, plain: Bytes) -> Bytes {
        if !wire.is_compressed() {
            return plain;
        }
        let bytes = self.compressors.shared_block(wire.encoding(), &plain);
        self.encoded(key, wire, &plain, bytes.len());
        bytes
    }

    /// Frames that make up `plain`.
    pub(super) fn encode_frames(&mut self, key: Key, wire: Wire, plain: &[u8], frames: &[Sent]) -> Bytes {
        let scratch = &mut self.compressors;
        let bytes = match frames {
            _ if !wire.is_compressed() => Bytes::copy_from_slice(plain),
            [Sent { frame, own_id: None }] => frame.whole_block(wire, scratch),
            many if are_one_block(many) => scratch.shared_block(wire.encoding(), plain),
            few => {
                let mut bytes = Vec::with_capacity(plain.len());
                for Sent { frame, own_id } in few {
                    match own_id {
                        Some(id) => frame.append_with_id(wire, id, scratch, &mut bytes),
                        None => bytes.extend_from_slice(&frame.whole_block(wire, scratch)),
                    }
                }
                bytes.into()
            }
        };
        self.encoded(key, wire, plain, bytes.len());
        bytes
    }

    fn encoded(&mut self, key: Key, wire: Wire, plain: &[u8], bytes: usize) {
        if wire.is_compressed() {
            self.streams[key.index as usize].diverge(wire.encoding(), plain);
            self.hub.metrics.count_compressed(wire.encoding(), plain.len() as u64, bytes as u64);
        }
    }

    /// Counts a stream that has begun, or ended.
    pub(super) fn count_stream(&self, wire: Wire, change: i64) {
        if wire.is_compressed() {
            self.hub.metrics.compressed_connections.with_label_values(&[wire.encoding().as_str()]).add(change);
        }
    }
}

/// Whether frames for one connection are compressed together. Only those of one channel are: see [`compress`].
fn are_one_block(frames: &[Sent]) -> bool {
    frames.len() > APART && frames.windows(2).all(|two| two[0].frame.channel() == two[1].frame.channel())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn frames_of_two_channels_are_never_one_block() {
        let frame = |channel: &str| {
            let event = Event::new(None, Bytes::from_static(b"x")).expect("valid");
            let frame = Frame::unpositioned(Channel::new(channel).expect("a name"), 0, event);
            Sent { frame: Arc::new(frame), own_id: None }
        };
        let of = |channels: &[&str]| are_one_block(&channels.iter().map(|channel| frame(channel)).collect::<Vec<_>>());
        assert!(of(&["a"; 5]) && !of(&["a"; 4]));
        for mixed in [["a", "a", "b", "a", "a", "a"], ["a", "a", "a", "a", "a", "b"], ["b", "a", "a", "a", "a", "a"]] {
            assert!(!of(&mixed));
        }
    }
}
