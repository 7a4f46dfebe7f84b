//! Takes the chunks off an HTTP/1.1 body (RFC 9112, section 7.1), cut anywhere. Trailers are skipped.

/// Where in the body the next byte stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// An extension, or the rest of the size's line.
    SizeLine,
    Data,
    /// The line break after a chunk's data.
    AfterData,
    End,
}

/// The state of one body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    left: usize,
}

impl Chunked {
    /// Appends the content of `bytes` to `out`.
    ///
    /// # Errors
    /// When a chunk's size is no number.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        while let Some(&byte) = bytes.first() {
            match self.state {
                State::Data => {
                    let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                    out.extend_from_slice(now);
                    self.left -= now.len();
                    if self.left == 0 {
                        self.state = State::AfterData;
                    }
                    bytes = later;
                    continue;
                }
                State::End => return Ok(()),
                State::Size => match (byte as char).to_digit(16) {
                    Some(digit) => self.left = self.left * 16 + digit as usize,
                    None if matches!(byte, b'\r' | b';') => self.state = State::SizeLine,
                    None => return Err(format!("{byte:#x} in the size of a chunk")),
                },
                State::SizeLine if byte == b'\n' => {
                    self.state = if self.left == 0 { State::End } else { State::Data };
                }
                State::AfterData if byte == b'\n' => self.state = State::Size,
                State::SizeLine | State::AfterData => {}
            }
            bytes = &bytes[1..];
        }
        Ok(())
    }

    /// The last chunk has come: the body is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == State::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_whatever_the_cuts() {
        let body = b"5;x=y\r\nhello\r\n10\r\n, wonderful worl\r\n1\r\nd\r\n0\r\n\r\n";
        for cut in 0..body.len() {
            let (mut chunked, mut out) = (Chunked::default(), Vec::new());
            chunked.push(&body[..cut], &mut out).expect("valid");
            chunked.push(&body[cut..], &mut out).expect("valid");
            assert_eq!((String::from_utf8_lossy(&out).as_ref(), chunked.is_whole()), ("hello, wonderful world", true));
        }
    }
}
