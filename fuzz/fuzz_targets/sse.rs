//! An event stream as the command line reads it, in pieces. The first byte says how long they are.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, stream)) = bytes.split_first() {
        sluice_cli::sse::promises::stream(stream, &[usize::from(*first), usize::from(first % 7)]);
    }
});
