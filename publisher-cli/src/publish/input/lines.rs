//! Lines of bytes from a reader: bounded in memory, and safe to stop waiting for, as nothing read is ever lost.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// One line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// How many bytes of the input it took, its line break included.
    pub(super) bytes: u64,
    /// The line without its LF or CRLF; `None` if it is longer than the limit.
    pub(super) text: Option<&'a [u8]>,
}

#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    /// Bytes of the present line that came so far, kept or not.
    bytes: u64,
    /// The line in `line` was handed out and is to be forgotten.
    is_done: bool,
    number: u64,
    limit_bytes: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, limit_bytes: usize) -> Self {
        Self { reader, line: Vec::new(), bytes: 0, is_done: false, number: 0, limit_bytes }
    }

    /// The next line, `None` at the end of the input. A last line needs no line break. Cancel safe: the one wait in it
    /// takes nothing from the reader, and everything else is kept in `self`.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if std::mem::take(&mut self.is_done) {
            self.line.clear();
            self.bytes = 0;
        }
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() && self.bytes == 0 {
                return Ok(None);
            }
            let end = available.iter().position(|&b| b == b'\n');
            let piece = &available[..end.map_or(available.len(), |at| at + 1)];
            let taken = piece.len();
            self.bytes += taken as u64;
            // A line at the limit and its CRLF; of a longer one the rest is counted, not kept.
            let room = self.limit_bytes + 2 - self.line.len();
            self.line.extend_from_slice(&piece[..taken.min(room)]);
            self.reader.consume(taken);
            if end.is_some() || taken == 0 {
                break;
            }
        }
        self.is_done = true;
        self.number += 1;
        let text = without_break(&self.line);
        let fits = text.len() <= self.limit_bytes && self.bytes <= self.limit_bytes as u64 + 2;
        Ok(Some(Line { number: self.number, bytes: self.bytes, text: fits.then_some(text) }))
    }
}

/// The bytes without the LF or CRLF that may end them.
pub(super) fn without_break(bytes: &[u8]) -> &[u8] {
    match bytes.strip_suffix(b"\n") {
        Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn all(input: &[u8], buffer: usize, limit: usize) -> Vec<(u64, u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, input), limit);
        let mut found = Vec::new();
        while let Some(Line { number, bytes, text }) = lines.next().await.expect("reads from memory") {
            found.push((number, bytes, text.map(<[u8]>::to_vec)));
        }
        found
    }

    #[tokio::test]
    async fn lines_with_any_ending_and_any_buffer() {
        for buffer in [1, 2, 3, 100] {
            let found = all(b"a\nbc\r\n\n\rd\r", buffer, 100).await;
            let texts: Vec<_> = found.iter().map(|(_, _, text)| text.as_deref().expect("short")).collect();
            assert_eq!(texts, [b"a".as_slice(), b"bc", b"", b"\rd\r"], "buffer {buffer}");
            assert_eq!(found.iter().map(|(_, bytes, _)| bytes).sum::<u64>(), 10);
        }
        assert_eq!(all(b"", 8, 100).await, []);
    }

    #[tokio::test]
    async fn a_long_line_is_passed_over_and_the_next_one_read() {
        for buffer in [1, 2, 3, 100] {
            let found = all(b"abcd\nabcde\nabcd\r\nabcdefghijkl\r\nx", buffer, 4).await;
            let texts: Vec<_> = found.iter().map(|(_, _, text)| text.as_deref()).collect();
            assert_eq!(texts, [Some(b"abcd".as_slice()), None, Some(b"abcd"), None, Some(b"x")], "buffer {buffer}");
        }
    }
}
