//! What is read is what the parser of the standard reads.

use super::*;
use crate::sse::Parser;
use proptest::prelude::*;

/// The data of each event, its lines joined by LF.
fn data_of(pieces: &[&[u8]]) -> Vec<String> {
    let (mut lines, mut held) = (Lines::default(), Vec::new());
    let (mut events, mut data) = (Vec::new(), Vec::new());
    for piece in pieces {
        let pushed = lines.push(&mut held, piece, |line| match line {
            Line::Data(value) => data.push(String::from_utf8_lossy(value).into_owned()),
            Line::End if data.is_empty() => {}
            Line::End => events.push(std::mem::take(&mut data).join("\n")),
        });
        pushed.expect("within the limit");
    }
    events
}

fn by_the_standard(stream: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    Parser::new().push(stream, &mut events).expect("within the limit");
    events.into_iter().map(|event| event.data).collect()
}

/// Streams made of what matters, so that all of it meets.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec!["data", "id", ":", " ", "\n", "\r", "\r\n", "x", "event: y", "\n\n"]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat().into_bytes())
}

/// Cuts bytes at places given as fractions.
pub(crate) fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn events_are_those_of_the_standard_however_the_stream_is_cut(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        prop_assert_eq!(data_of(&cut(&stream, &cuts)), by_the_standard(&stream));
    }
}

#[test]
fn a_line_without_end_is_refused_and_not_kept_for_ever() {
    let (mut lines, mut held) = (Lines::default(), Vec::new());
    let piece = vec![b'x'; 1 << 20];
    assert!((0..17).any(|_| lines.push(&mut held, &piece, |_| {}).is_err()));
}
