//! The first bytes of a connection, in two pieces. The first byte says how long the first piece is.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, bytes)) = bytes.split_first() {
        promises::proxy_header(bytes, usize::from(*first));
    }
});
