//! The chunked transfer coding (RFC 9112, section 7.1), decoded from bytes that are cut anywhere.

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the hexadecimal size, of which so much has been read.
    Size {
        bytes: u64,
        has_digits: bool,
    },
    /// Behind the size, in what is left of its line.
    Extension {
        bytes: u64,
    },
    /// In the data, of which so much is to come.
    Data {
        bytes: u64,
    },
    /// Behind the data, before the line feed of its line break.
    Break,
    /// In the trailer; whether its line has anything in it yet.
    Trailer {
        is_empty: bool,
    },
    End,
}

/// The bytes are no chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Chunked {
    pub(super) const START: Self = Self::Size { bytes: 0, has_digits: false };

    /// Takes bytes off the front up to the end of the next piece of data, and gives that piece; `None` when there is
    /// none in them or the coding is at its end.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *self = match *self {
                Self::End => return Ok(None),
                Self::Data { bytes: left } => {
                    let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (piece, after) = bytes.split_at(here);
                    *bytes = after;
                    let left = left - here as u64;
                    *self = if left == 0 { Self::Break } else { Self::Data { bytes: left } };
                    return Ok(Some(piece));
                }
                Self::Size { bytes: size, has_digits } => match (byte as char).to_digit(16) {
                    // Sixteen digits would overflow; no server sends fifteen.
                    Some(_) if size >> 56 != 0 => return Err(Malformed),
                    Some(digit) => Self::Size { bytes: size << 4 | u64::from(digit), has_digits: true },
                    None if !has_digits => return Err(Malformed),
                    None if byte == b'\n' => Self::after_size(size),
                    None => Self::Extension { bytes: size },
                },
                Self::Extension { bytes: size } if byte == b'\n' => Self::after_size(size),
                Self::Extension { bytes: size } => Self::Extension { bytes: size },
                Self::Break => match byte {
                    b'\r' => Self::Break,
                    b'\n' => Self::START,
                    _ => return Err(Malformed),
                },
                Self::Trailer { is_empty: true } if byte == b'\n' => Self::End,
                Self::Trailer { is_empty } => Self::Trailer { is_empty: byte == b'\n' || (is_empty && byte == b'\r') },
            };
            *bytes = rest;
        }
        Ok(None)
    }

    fn after_size(bytes: u64) -> Self {
        if bytes == 0 { Self::Trailer { is_empty: true } } else { Self::Data { bytes } }
    }
}
