//! A token, or the claims of one.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|text: &str| promises::token(text));
