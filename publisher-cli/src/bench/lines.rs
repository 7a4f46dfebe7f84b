//! The lines of an event stream that a measurement looks at: `data:`, and the empty one that ends an event.
//!
//! As [`crate::sse::Parser`] reads them, but made to be run ten thousand times a pass: nothing is copied, decoded or
//! kept but a line whose end has not come yet, and that in the caller's buffer.

use crate::sse::LineEnds;

/// A line, as one of those that matter; its value is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Data(&'a [u8]),
    /// The empty line.
    End,
}

/// A line is longer than this, and so nothing that was published here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

const MAX_LINE_BYTES: usize = 16 << 20;

/// What must be known of the bytes before, beside an unfinished line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    ends: LineEnds,
}

impl Lines {
    /// Gives the lines that `bytes` completes to `sink`; `held` is the unfinished one before and after.
    pub(super) fn push(
        &mut self,
        held: &mut Vec<u8>,
        mut bytes: &[u8],
        mut sink: impl FnMut(Line<'_>),
    ) -> Result<(), TooLong> {
        while let Some(rest) = self.ends.next(&mut bytes) {
            if held.is_empty() {
                take(rest, &mut sink);
            } else {
                held.extend_from_slice(rest);
                take(held, &mut sink);
                held.clear();
            }
        }
        if held.len() + bytes.len() > MAX_LINE_BYTES {
            return Err(TooLong);
        }
        held.extend_from_slice(bytes);
        Ok(())
    }
}

fn take(line: &[u8], sink: &mut impl FnMut(Line<'_>)) {
    if line.is_empty() {
        sink(Line::End);
    } else if line == b"data" {
        sink(Line::Data(b""));
    } else if let Some(value) = line.strip_prefix(b"data:") {
        sink(Line::Data(value.strip_prefix(b" ").unwrap_or(value)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
