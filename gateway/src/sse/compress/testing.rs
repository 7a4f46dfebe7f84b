//! A client's decoder, for tests: flate2 on miniz_oxide for gzip, which is not what the gateway compresses with, and
//! zstd's own.

use std::io::Write;

/// Reads a compressed stream as it comes.
pub(crate) enum Reader {
    Identity,
    Gzip { decoder: flate2::write::GzDecoder<Vec<u8>>, open: bool },
    Zstd { decoder: zstd::stream::write::Decoder<'static, Vec<u8>>, last: Vec<u8> },
}

impl Reader {
    /// By the name that `Content-Encoding` has for it.
    pub(crate) fn new(encoding: &str) -> Self {
        match encoding {
            "identity" => Self::Identity,
            "gzip" => Self::Gzip { decoder: flate2::write::GzDecoder::new(Vec::new()), open: true },
            "zstd" => {
                let decoder = zstd::stream::write::Decoder::new(Vec::new()).expect("memory");
                Self::Zstd { decoder, last: Vec::new() }
            }
            other => panic!("an unknown encoding: {other}"),
        }
    }

    /// What can be read now that `bytes` have come.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Identity => bytes.to_vec(),
            Self::Gzip { decoder, .. } => {
                decoder.write_all(bytes).expect("gzip");
                decoder.flush().expect("gzip");
                std::mem::take(decoder.get_mut())
            }
            Self::Zstd { decoder, last } => {
                decoder.write_all(bytes).expect("zstd");
                decoder.flush().expect("zstd");
                last.extend_from_slice(bytes);
                last.drain(..last.len().saturating_sub(3));
                std::mem::take(decoder.get_mut())
            }
        }
    }

    /// Whether the stream has come to its proper end.
    #[allow(dead_code, reason = "the integration tests that use this file as well do not ask")]
    pub(crate) fn is_whole(&mut self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip { decoder, open } => std::mem::take(open) && decoder.try_finish().is_ok(),
            Self::Zstd { last, .. } => *last == [1, 0, 0],
        }
    }
}
