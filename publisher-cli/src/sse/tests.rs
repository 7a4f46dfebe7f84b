//! The standard's own examples, its corners, and the promise that cuts do not matter.

use super::*;
use proptest::prelude::*;

fn parse(stream: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    Parser::new().push(stream, &mut events).expect("within the limit");
    events
}

fn event(id: &str, event: &str, data: &str) -> Event {
    Event { id: id.into(), event: event.into(), data: data.into(), retry: None }
}

#[test]
fn the_standards_example_of_three_lines() {
    assert_eq!(parse(b"data: YHOO\ndata: +2\ndata: 10\n\n"), [event("", "message", "YHOO\n+2\n10")]);
}

#[test]
fn the_standards_example_of_four_blocks() {
    let stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
    let whole = [stream.as_slice(), b"\n"].concat();
    let expected = [event("1", "message", "first event"), event("", "message", "second event")];
    assert_eq!(parse(stream), expected, "the third block is not ended, and so not dispatched");
    assert_eq!(parse(&whole)[2], event("", "message", " third event"));
}

#[test]
fn the_standards_example_of_empty_data() {
    let stream = b"data\n\ndata\ndata\n\ndata:";
    assert_eq!(parse(stream), [event("", "message", ""), event("", "message", "\n")]);
}

#[test]
fn the_standards_example_of_optional_spaces() {
    assert_eq!(parse(b"data:test\n\ndata: test\n\n"), [event("", "message", "test"), event("", "message", "test")]);
}

#[test]
fn the_standards_example_of_types() {
    let stream = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n";
    assert_eq!(parse(stream), [event("", "add", "73857293"), event("", "remove", "2153"), event("", "add", "113411")]);
}

#[test]
fn a_type_without_data_fires_nothing_and_is_forgotten() {
    assert_eq!(parse(b"event: a\n\ndata: x\n\n"), [event("", "message", "x")]);
}

#[test]
fn one_byte_order_mark_is_skipped_and_a_second_is_text() {
    assert_eq!(parse("\u{feff}data: x\n\n".as_bytes()), [event("", "message", "x")]);
    assert_eq!(parse("\u{feff}\u{feff}data: x\n\n".as_bytes()), []);
    assert_eq!(parse("data: a\n\n\u{feff}data: b\n\n".as_bytes()), [event("", "message", "a")]);
}

#[test]
fn an_id_with_nul_is_ignored_and_an_empty_one_resets() {
    let stream = b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid\ndata: c\n\n";
    assert_eq!(parse(stream), [event("1", "message", "a"), event("1", "message", "b"), event("", "message", "c")]);
}

#[test]
fn an_id_counts_when_its_block_ends_even_without_data() {
    let mut parser = Parser::new();
    let mut events = Vec::new();
    parser.push(b"id: here\n", &mut events).expect("small");
    assert_eq!(parser.last_event_id(), "", "the block may still be cut short");
    parser.push(b"\n", &mut events).expect("small");
    assert_eq!(parser.last_event_id(), "here");
    assert_eq!(events, []);
}

#[test]
fn an_id_survives_reconnection_until_another_comes() {
    let mut parser = Parser::resuming("old");
    let mut events = Vec::new();
    parser.push(b"data: a\n\nid: new\ndata: b\n\n", &mut events).expect("small");
    assert_eq!(events, [event("old", "message", "a"), event("new", "message", "b")]);
}

#[test]
fn retry_is_digits_only() {
    let mut parser = Parser::new();
    let mut events = Vec::new();
    for (line, expected) in [
        ("retry: 1500", Some(1500)),
        ("retry", Some(1500)),
        ("retry: +2", Some(1500)),
        ("retry: 2.5", Some(1500)),
        ("retry:  7", Some(1500)),
        ("retry:7 ", Some(1500)),
        ("retry:007", Some(7)),
        ("retry: 99999999999999999999999", Some(u64::MAX)),
    ] {
        parser.push(format!("{line}\n").as_bytes(), &mut events).expect("small");
        assert_eq!(parser.reconnection_time_ms(), expected, "{line}");
    }
    parser.push(b"data: x\n\ndata: y\n\n", &mut events).expect("small");
    assert_eq!(events.iter().map(|e| e.retry).collect::<Vec<_>>(), [Some(u64::MAX), None]);
}

#[test]
fn field_names_are_exact() {
    assert_eq!(parse(b"Data: a\n data: b\ndata : c\ndatax: d\ndata: ok\n\n"), [event("", "message", "ok")]);
}

#[test]
fn bad_utf8_becomes_replacement_characters() {
    assert_eq!(parse(b"data: a\xffb\xe2\x82\ndata: c\n\n"), [event("", "message", "a\u{fffd}b\u{fffd}\nc")]);
}

#[test]
fn an_event_is_dispatched_at_the_cr_without_waiting_for_an_lf() {
    let mut parser = Parser::new();
    let mut events = Vec::new();
    parser.push(b"data: a\r\n\r", &mut events).expect("small");
    assert_eq!(events.len(), 1);
    parser.push(b"\ndata: b\r", &mut events).expect("small");
    parser.push(b"", &mut events).expect("small");
    parser.push(b"\n\n", &mut events).expect("small");
    assert_eq!(events, [event("", "message", "a"), event("", "message", "b")]);
}

#[test]
fn what_is_too_large_is_an_error_and_stays_one() {
    let many_lines = "data: 12345\n".repeat(20);
    for endless in [b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxx".as_slice(), many_lines.as_bytes(), &[b':'; 65]] {
        let mut parser = Parser::new().with_limit(64);
        let mut events = Vec::new();
        let mut pushes = 0;
        while parser.push(endless, &mut events).is_ok() {
            pushes += 1;
            assert!(pushes < 4, "bounded");
        }
        assert_eq!(parser.push(b"\n\n", &mut events), Err(TooLarge { limit_bytes: 64 }));
        assert_eq!(events, []);
    }
    let mut events = Vec::new();
    let mut parser = Parser::new().with_limit(64);
    let small_events = "data: 12345\n\n".repeat(1000);
    parser.push(small_events.as_bytes(), &mut events).expect("the limit is for one event, not for the stream");
    assert_eq!(events.len(), 1000);
}

fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec!["\n", "\r", "\r\n", ":", " ", "\0", "\u{feff}", "é", "x", "7"])
            .prop_map(|s| s.as_bytes().to_vec()),
        8 => prop::sample::select(vec!["data", "data:", "data: ", "event: ", "id: ", "id", "retry: ", "retry: 12"])
            .prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_matter_and_the_result_is_the_standards(
        stream in stream_bytes(),
        cuts in prop::collection::vec(0usize..8, 1..40),
    ) {
        super::promises::stream(&stream, &cuts);
    }
}
