//! What clients make of a stream's `Content-Encoding`: gzip by flate2 on miniz_oxide, zstd by its own library, neither
//! of which is told more than the bytes that came.

use crate::client::Head;
use std::io::{self, Write};

/// Reads one answer's body as it comes.
pub enum Decoder {
    Identity,
    Gzip { decoder: flate2::write::GzDecoder<Vec<u8>>, ended: bool },
    Zstd { decoder: zstd::stream::write::Decoder<'static, Vec<u8>>, last: Vec<u8> },
}

impl Decoder {
    /// For an answer with this head.
    ///
    /// # Errors
    /// When it has an encoding that was not asked for.
    pub fn new(head: &Head) -> io::Result<Self> {
        Self::named(head.header("content-encoding").as_deref().unwrap_or("identity"))
    }

    /// By the name of the encoding.
    ///
    /// # Errors
    /// When it is none of those that the gateway has.
    pub fn named(encoding: &str) -> io::Result<Self> {
        Ok(match encoding {
            "identity" => Self::Identity,
            "gzip" => Self::Gzip { decoder: flate2::write::GzDecoder::new(Vec::new()), ended: false },
            "zstd" => Self::Zstd { decoder: zstd::stream::write::Decoder::new(Vec::new())?, last: Vec::new() },
            other => return Err(io::Error::other(format!("an unknown encoding: {other}"))),
        })
    }

    /// What can be read now that `bytes` have come.
    ///
    /// # Errors
    /// When they are not in the encoding, or go on after its end.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(bytes.to_vec()),
            Self::Gzip { decoder, .. } => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                Ok(std::mem::take(decoder.get_mut()))
            }
            Self::Zstd { decoder, last } => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                last.extend_from_slice(bytes);
                last.drain(..last.len().saturating_sub(ZSTD_END.len()));
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }

    /// Whether the body has come to its encoding's end, with the right checksum. Asked once, when nothing more comes.
    pub fn is_whole(&mut self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip { decoder, ended } => !std::mem::replace(ended, true) && decoder.try_finish().is_ok(),
            Self::Zstd { last, .. } => *last == ZSTD_END,
        }
    }
}

/// How the gateway ends a zstd stream: an empty last block (RFC 8878, 3.1.1.2).
const ZSTD_END: [u8; 3] = [1, 0, 0];
