//! The parser's promise, as a function that panics where it is broken. A property test calls it, and a target in `fuzz/`;
//! it is in no build for use (cargo-fuzz sets `fuzzing`).

use super::{Event, Parser, TooLarge};

/// The stream in pieces of these sizes, again and again: its events are the standard's, and cuts do not matter.
pub fn stream(stream: &[u8], cuts: &[usize]) {
    let mut parser = Parser::new();
    let mut small = Parser::new().with_limit(40);
    let (mut events, mut small_events) = (Vec::new(), Vec::new());
    let mut small_end = Ok(());
    let mut push = |piece: &[u8]| {
        parser.push(piece, &mut events).expect("within the limit");
        let end = small.push(piece, &mut small_events);
        assert!(small_end.is_ok() || end == small_end, "what is too large stays so");
        small_end = end;
    };
    let mut rest = stream;
    for size in cuts.iter().cycle().take(stream.len() * cuts.len()) {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        push(now);
        rest = later;
    }
    push(rest);
    let (expected, last_id) = obvious(stream);
    assert_eq!(events, expected);
    assert_eq!(parser.last_event_id(), last_id);
    match small_end {
        Ok(()) => assert_eq!(small_events, expected),
        Err(TooLarge { limit_bytes }) => {
            assert_eq!(limit_bytes, 40);
            assert!(expected.starts_with(&small_events), "up to what is too large they are the same");
        }
    }
}

/// The standard's text written down as directly as possible, for a whole stream at once.
fn obvious(stream: &[u8]) -> (Vec<Event>, String) {
    let text = String::from_utf8_lossy(stream).into_owned();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let Some((ended, _unended_line)) = text.rsplit_once('\n') else { return (Vec::new(), String::new()) };
    let (mut data, mut event_type, mut id_buffer, mut last_id) =
        (String::new(), String::new(), String::new(), String::new());
    let (mut retry, mut events) = (None, Vec::new());
    for line in ended.split('\n') {
        if line.is_empty() {
            last_id.clone_from(&id_buffer);
            if let Some(data) = data.strip_suffix('\n') {
                let name = if event_type.is_empty() { "message" } else { &event_type };
                events.push(Event { id: last_id.as_str().into(), event: name.into(), data: data.into(), retry });
            }
            (data, event_type, retry) = (String::new(), String::new(), None);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data += &format!("{value}\n"),
            "event" => event_type = value.into(),
            "id" if !value.contains('\0') => id_buffer = value.into(),
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                retry = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }
    (events, last_id)
}
