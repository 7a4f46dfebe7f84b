//! A message from Redis: the name of its channel, a line's end, its payload.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    promises::message(&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
});
