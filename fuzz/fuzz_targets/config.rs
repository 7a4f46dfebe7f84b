//! A file of settings; after a line `#env`, variables of the environment, `NAME=value` a line.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let marker = b"\n#env\n";
    let end = bytes.windows(marker.len()).position(|part| part == marker);
    let (file, env) = end.map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + marker.len()..]));
    let env = String::from_utf8_lossy(env);
    let env: Vec<_> = env.lines().filter_map(|line| line.split_once('=')).collect();
    promises::config(file, &env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>());
});
