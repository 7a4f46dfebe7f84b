//! The body of a request that publishes. The first byte says whether it is lines.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, body)) = bytes.split_first() {
        promises::publish_body(body, *first == b'l');
    }
});
