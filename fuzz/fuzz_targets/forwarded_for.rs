//! Lines of `X-Forwarded-For`. The first byte says how many proxies there are.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, bytes)) = bytes.split_first() {
        let lines: Vec<_> = bytes.split(|&byte| byte == b'\n').collect();
        promises::forwarded_for(&lines, usize::from(first % 6));
    }
});
