//! The first bytes of a connection, as they came in one piece.
#![no_main]

use sluice_gateway::promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| promises::whole_request(bytes));
