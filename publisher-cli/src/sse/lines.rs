//! Where the lines of an event stream end: at LF, at CR, and at CR LF, however the stream is cut.

/// What must be known of the bytes before, to go on behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineEnds {
    /// The last line ended with a CR, so that an LF now is its second half and no line of its own.
    after_cr: bool,
}

impl LineEnds {
    /// Takes the next line off the bytes, without its end. With `None`, the bytes that are left are the beginning of a
    /// line.
    ///
    /// A CR ends the line at once: waiting for a possible LF would hold an event back.
    #[inline]
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            *bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        let end = memchr::memchr2(b'\n', b'\r', bytes)?;
        let line = &bytes[..end];
        self.after_cr = bytes[end] == b'\r';
        *bytes = &bytes[end + 1..];
        Some(line)
    }
}
