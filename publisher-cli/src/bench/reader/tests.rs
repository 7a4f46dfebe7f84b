//! Streams as servers send them, cut anywhere; and bytes that nobody should send.

use super::*;
use crate::bench::{checker::Faults, lines::tests::cut};
use proptest::prelude::*;
use std::io::Write;

/// A ledger with one channel of one stream, to which so many events have been published.
fn ledger(events: u32) -> Ledger {
    let mut ledger = Ledger::new(7);
    let group = ledger.add_group().expect("a group");
    let channel = ledger.add_channel(group, 1);
    for _ in 0..events {
        let number = ledger.checker.sent(channel, 0);
        ledger.checker.accepted(channel, number, 1, false);
    }
    ledger
}

/// The stream of these events, some of them in an envelope, with an event in between that is not of this run.
fn stream(ledger: &Ledger, events: u32) -> Vec<u8> {
    let mut bytes = b": hello\nretry: 1\nid: x\n\nevent: heartbeat\ndata\n\n".to_vec();
    for number in 0..events {
        bytes.extend_from_slice(format!("id: {number}\r\ndata: {{\"pub\":\"").as_bytes());
        ledger.stamps.write(Stamp { channel: 0, number, time: 5 }, &mut bytes);
        bytes.extend_from_slice(b"\"}\r\ndata:more\r\n\r\n");
    }
    bytes
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    UntilClose,
    Chunked(usize),
    Gzip,
}

fn answer(stream: &[u8], framing: Framing) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n".to_vec();
    match framing {
        Framing::UntilClose => bytes.extend_from_slice(&[b"\r\n", stream].concat()),
        Framing::Chunked(length) => {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in stream.chunks(length) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(&[chunk, b"\r\n"].concat());
            }
        }
        Framing::Gzip => {
            bytes.extend_from_slice(b"content-encoding: gzip\r\n\r\n");
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(stream).and_then(|()| encoder.flush()).expect("compresses");
            bytes.extend_from_slice(encoder.get_ref());
        }
    }
    bytes
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Framing::UntilClose), (1usize..200).prop_map(Framing::Chunked), Just(Framing::Gzip)]
}

proptest! {
    #[test]
    fn every_event_is_seen_once_and_in_order_however_the_stream_is_framed_and_cut(
        events in 0u32..20,
        framing in framing(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut ledger = ledger(events);
        let stream = stream(&ledger, events);
        let answer = answer(&stream, framing);
        let (mut reader, mut scratch) = (Reader::new(0), Scratch::default());
        for piece in cut(&answer, &cuts) {
            prop_assert_eq!(reader.take(0, piece, 9, &mut ledger, &mut scratch), Ok(()));
            prop_assert!(scratch.partial.is_empty(), "what is left over stays with its stream");
        }
        prop_assert_eq!(ledger.deliveries(), u64::from(events));
        prop_assert_eq!(ledger.groups[0].completed, u64::from(events));
        prop_assert_eq!(ledger.checker.faults(), Faults::default());
        prop_assert_eq!(ledger.other_events, 1);
        prop_assert_eq!(ledger.body_bytes, stream.len() as u64);
        prop_assert!(reader.partial.is_none(), "between events a stream holds nothing");
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(
        framing in prop::option::of(framing()),
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        place in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut ledger = ledger(3);
        let mut bytes = framing.map_or_else(Vec::new, |framing| answer(&stream(&ledger, 3), framing));
        let place = place.index(bytes.len() + 1);
        bytes.splice(place..place, garbage);
        let (mut reader, mut scratch) = (Reader::new(0), Scratch::default());
        let taken = cut(&bytes, &cuts).into_iter().try_for_each(|piece| {
            reader.take(0, piece, 9, &mut ledger, &mut scratch)
        });
        if taken.is_err() {
            prop_assert!(scratch.partial.is_empty(), "what a broken stream held is not the next one's");
        }
    }
}

#[test]
fn what_is_no_event_stream_is_told() {
    for (head, reason) in [
        ("503 Service Unavailable\r\n", Ended::Status(503)),
        ("200 OK\r\ncontent-type: text/html\r\n", Ended::NoEventStream),
        ("200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: br\r\n", Ended::Encoding),
        ("200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n", Ended::Closed),
    ] {
        let bytes = format!("HTTP/1.1 {head}\r\n");
        let taken = Reader::new(0).take(0, bytes.as_bytes(), 1, &mut ledger(0), &mut Scratch::default());
        assert_eq!(taken, Err(reason));
    }
}

#[test]
fn a_stream_is_small() {
    // Of ten thousand a pass goes through all: it should find them in the cache.
    assert!(size_of::<Reader>() <= 64, "{}", size_of::<Reader>());
}
