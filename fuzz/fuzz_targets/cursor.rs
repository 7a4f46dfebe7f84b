//! A cursor as a client sent it; and its lines as the names of channels, in whose places a cursor is written.
#![no_main]

use sluice_gateway::{channel::Channel, position::Position, promises};

libfuzzer_sys::fuzz_target!(|text: &str| {
    promises::cursor(text);
    let mut places = Vec::new();
    for line in text.lines() {
        promises::name(line);
        promises::position(line);
        if let Ok(channel) = Channel::new(line) {
            let number = line.bytes().fold(1_u64, |number, byte| number.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
            places.push((channel, Position::new(number, number.rotate_left(7)), number % 3 == 0));
        }
    }
    promises::places(&places);
});
