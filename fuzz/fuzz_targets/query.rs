//! A request, line by line: its target, its `Last-Event-ID`, its `Accept`.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(3, |&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    if let Ok(target) = std::str::from_utf8(next()) {
        promises::request(target, next(), next());
    }
});
