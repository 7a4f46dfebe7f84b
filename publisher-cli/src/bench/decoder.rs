//! Compressed bodies, decoded as they come.

use super::response::Encoding;
use flate2::{Decompress, FlushDecompress, Status};
use std::io;
use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};

/// What a stream asks for in `Accept-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AcceptEncoding {
    Gzip,
    Zstd,
}

impl AcceptEncoding {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The body is not what its encoding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// One body's state: some 43 KiB for gzip and, by its window, more for zstd.
pub(super) enum Decoder {
    Gzip(Gzip),
    Zstd(raw::Decoder<'static>),
}

/// RFC 1952. Its checksums are not looked at: whether the events are right is checked anyway.
pub(super) struct Gzip {
    deflate: Decompress,
    state: GzipState,
}

enum GzipState {
    /// What has come of the header.
    Header(Vec<u8>),
    Body,
    /// So many bytes of the trailer are to come.
    Trailer(usize),
}

/// At least so much room for each step.
const ROOM_BYTES: usize = 16 * 1024;
const TRAILER_BYTES: usize = 8;
const MAX_HEADER_BYTES: usize = 64 * 1024;

impl Decoder {
    /// The decoder for a body of this encoding, `None` where there is nothing to decode.
    pub(super) fn new(encoding: Encoding) -> io::Result<Option<Self>> {
        Ok(match encoding {
            Encoding::Gzip => {
                let (deflate, state) = (Decompress::new(false), GzipState::Header(Vec::new()));
                Some(Self::Gzip(Gzip { deflate, state }))
            }
            Encoding::Zstd => Some(Self::Zstd(raw::Decoder::new()?)),
            Encoding::Identity | Encoding::Other => None,
        })
    }

    /// Appends everything that these bytes give to `into`.
    pub(super) fn push(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Undecodable> {
        match self {
            Self::Gzip(gzip) => gzip.push(bytes, into),
            Self::Zstd(decoder) => unzstd(decoder, bytes, into),
        }
    }
}

impl Gzip {
    fn push(&mut self, mut bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Undecodable> {
        while !bytes.is_empty() {
            match &mut self.state {
                GzipState::Header(held) => {
                    let before = held.len();
                    held.extend_from_slice(bytes);
                    match header_length(held)? {
                        // What was held before was not a whole header, so its end is in the new bytes.
                        Some(length) => {
                            bytes = bytes.get(length.saturating_sub(before)..).unwrap_or_default();
                            self.state = GzipState::Body;
                        }
                        None if held.len() > MAX_HEADER_BYTES => return Err(Undecodable),
                        None => return Ok(()),
                    }
                }
                GzipState::Body => bytes = self.inflate(bytes, into)?,
                GzipState::Trailer(left) => {
                    let here = bytes.len().min(*left);
                    bytes = &bytes[here..];
                    *left -= here;
                    if *left == 0 {
                        self.deflate.reset(false);
                        self.state = GzipState::Header(Vec::new());
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives what is left of the bytes behind the end of the compressed data.
    ///
    /// Only a step that neither takes nor gives anything is the end of what can be done: some implementations hand out
    /// what they hold first, and leave the input, and room behind it, to the next step.
    fn inflate<'a>(&mut self, mut bytes: &'a [u8], into: &mut Vec<u8>) -> Result<&'a [u8], Undecodable> {
        loop {
            into.reserve(ROOM_BYTES);
            let before = (self.deflate.total_in(), self.deflate.total_out());
            let status = self.deflate.decompress_vec(bytes, into, FlushDecompress::None).map_err(|_| Undecodable)?;
            let after = (self.deflate.total_in(), self.deflate.total_out());
            bytes = &bytes[(after.0 - before.0) as usize..];
            if matches!(status, Status::StreamEnd) {
                self.state = GzipState::Trailer(TRAILER_BYTES);
                return Ok(bytes);
            }
            if after == before {
                // What it would not take is no deflate data.
                return if bytes.is_empty() { Ok(bytes) } else { Err(Undecodable) };
            }
        }
    }
}

/// The length of a gzip header (RFC 1952, section 2.3), `None` if these are not all of its bytes.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, Undecodable> {
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;
    let Some((fixed, mut rest)) = bytes.split_at_checked(10) else { return Ok(None) };
    if fixed[..3] != [0x1f, 0x8b, 8] {
        return Err(Undecodable);
    }
    let flags = fixed[3];
    if flags & FEXTRA != 0 {
        let Some((length, after)) = rest.split_first_chunk() else { return Ok(None) };
        let Some((_, after)) = after.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
            return Ok(None);
        };
        rest = after;
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            let Some(end) = rest.iter().position(|&byte| byte == 0) else { return Ok(None) };
            rest = &rest[end + 1..];
        }
    }
    if flags & FHCRC != 0 {
        let Some((_, after)) = rest.split_at_checked(2) else { return Ok(None) };
        rest = after;
    }
    Ok(Some(bytes.len() - rest.len()))
}

fn unzstd(decoder: &mut raw::Decoder<'static>, bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Undecodable> {
    let mut input = InBuffer::around(bytes);
    loop {
        into.reserve(ROOM_BYTES);
        let before = (input.pos(), into.len());
        let mut output = OutBuffer::around_pos(into, before.1);
        decoder.run(&mut input, &mut output).map_err(|_| Undecodable)?;
        let (end, is_full) = (output.pos(), output.pos() == output.capacity());
        if input.pos() == bytes.len() && !is_full {
            return Ok(());
        }
        if (input.pos(), end) == before {
            return Err(Undecodable);
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Decodes with the bytes cut into pieces of this length.
    fn decode(encoding: Encoding, bytes: &[u8], piece: usize) -> Result<Vec<u8>, Undecodable> {
        let mut decoder = Decoder::new(encoding).expect("a decoder").expect("decodes");
        let mut decoded = Vec::new();
        bytes.chunks(piece).try_for_each(|piece| decoder.push(piece, &mut decoded))?;
        Ok(decoded)
    }

    fn text() -> Vec<u8> {
        (0..20_000).map(|n| format!("data: {n}\n\n")).collect::<String>().into_bytes()
    }

    #[test]
    fn gzip_is_decoded_however_it_is_cut() {
        let builder = flate2::GzBuilder::new().filename("name").comment("comment").extra(vec![1, 2, 3]);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::default());
        encoder.write_all(&text()).expect("compresses");
        let mut bytes = encoder.finish().expect("ends");
        let once = bytes.len();
        for piece in [1, 7, 1_000, 1 << 20] {
            assert!(decode(Encoding::Gzip, &bytes, piece) == Ok(text()), "{piece}");
        }
        bytes.extend_from_within(..);
        assert_eq!(decode(Encoding::Gzip, &bytes, 100).expect("two members").len(), 2 * text().len());
        bytes[once] = 0;
        assert!(decode(Encoding::Gzip, &bytes, 100).is_err(), "what follows is no member");
        assert_eq!(decode(Encoding::Gzip, b"data: x\n\n...", 100), Err(Undecodable));
    }

    #[test]
    fn gzip_that_gives_more_than_there_is_room_for_is_decoded() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text()).expect("compresses");
        let bytes = encoder.finish().expect("ends");
        // A little and then much, into a buffer that is emptied in between as in a measurement: the room that there is
        // does not end where the decompressor's own buffer does, which then gives less than there is room for.
        for little in [500, 1_000, 5_000] {
            let mut decoder = Decoder::new(Encoding::Gzip).expect("a decoder").expect("decodes");
            let (mut all, mut decoded) = (Vec::new(), Vec::new());
            for piece in [&bytes[..little], &bytes[little..]] {
                decoded.clear();
                decoder.push(piece, &mut decoded).expect("gzip");
                all.extend_from_slice(&decoded);
            }
            assert!(all == text(), "{little}");
        }
    }

    #[test]
    fn what_was_flushed_is_there_at_once() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut decoder = Decoder::new(Encoding::Gzip).expect("a decoder").expect("decodes");
        let mut decoded = Vec::new();
        for n in 0..100 {
            encoder.write_all(format!("data: {n}\n\n").as_bytes()).expect("compresses");
            encoder.flush().expect("flushes");
            decoder.push(&std::mem::take(encoder.get_mut()), &mut decoded).expect("gzip");
            assert!(decoded.ends_with(format!("data: {n}\n\n").as_bytes()));
        }
    }

    #[test]
    fn zstd_is_decoded_however_it_is_cut_also_a_frame_per_event() {
        let whole = zstd::encode_all(&text()[..], 3).expect("compresses");
        let frames: Vec<u8> =
            text().chunks(100).flat_map(|event| zstd::encode_all(event, 3).expect("compresses")).collect();
        for piece in [1, 7, 1_000, 1 << 20] {
            assert!(decode(Encoding::Zstd, &whole, piece) == Ok(text()), "{piece}");
            assert!(decode(Encoding::Zstd, &frames, piece) == Ok(text()), "{piece}");
        }
        assert_eq!(decode(Encoding::Zstd, b"data: x\n\n", 100), Err(Undecodable));
    }
}
