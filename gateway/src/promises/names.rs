//! Names, patterns and positions: what is taken prints as itself, and nothing that could break a list, a line, a pattern
//! or a hash tag is taken.

use crate::{
    auth::subject_in_channel,
    channel::{Channel, FORBIDDEN, MAX_NAME_BYTES, Pattern},
    position::Position,
};

/// A text as a channel's name, as a pattern, and as a subject that becomes part of a name.
pub fn name(text: &str) {
    if let Ok(channel) = Channel::new(text) {
        assert!((1..=MAX_NAME_BYTES).contains(&text.len()), "{text:?}");
        assert!(text.bytes().all(|b| (0x21..0x7f).contains(&b) && !FORBIDDEN.contains(char::from(b))), "{text:?}");
        assert_eq!(channel.to_string(), text);
        assert_eq!(channel.to_string().parse(), Ok(channel.clone()));
        assert!(channel.cursor_key().iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "{text:?}");
        // A name is the pattern that matches it.
        assert!(Pattern::new(text).is_ok_and(|pattern| pattern.matches(text)), "{text:?}");
        let any = Pattern::new("*").is_ok_and(|pattern| pattern.matches(text));
        assert_eq!(any, !channel.is_reserved(), "{text:?}");
    }
    if let Ok(pattern) = Pattern::new(text) {
        assert_eq!(pattern.to_string(), text);
        assert!(!pattern.matches("$all") || text.starts_with('$'), "{text:?}");
    }
    let part = subject_in_channel(text);
    assert_eq!(percent_encoding::percent_decode_str(&part).decode_utf8().as_deref(), Ok(text));
    match Channel::of_user(text) {
        Ok(channel) => assert_eq!(channel.as_str(), format!("$user.{part}")),
        Err(_) => assert!(text.is_empty() || part.len() + "$user.".len() > MAX_NAME_BYTES, "{text:?}"),
    }
}

/// A text as a position: one that is read prints as the same two numbers, and has no others behind it by accident.
pub fn position(text: &str) {
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string().parse(), Ok(position));
    let digits = |number: &str| number.trim_start_matches('0').to_owned();
    let (micros, seq) = text.split_once('-').expect("a position has a dash");
    assert_eq!(
        (digits(micros), digits(seq)),
        (digits(&position.micros.to_string()), digits(&position.seq.to_string()))
    );
    assert_eq!(serde_json::json!(position), position.to_string());
    for (next, prev) in [(position, 0), (Position::new(0, 0), position.micros), (Position::new(9, 1), position.micros)]
    {
        let follows = position.seq.checked_add(1) == Some(next.seq) && prev == position.micros;
        assert_eq!(position.is_followed_by(next, prev), follows, "{next} after {position}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_what_it_prints_and_breaks_nothing(
            text in "\\$?(user\\.|conn\\.|all)?[a-z0-9.:*{},\\\\^|`<>\"%é \r\n\0-]{0,12}|[!-~]{195,205}|.*",
        ) {
            super::name(&text);
        }

        #[test]
        fn a_position_is_what_it_prints(text in "[0-9]{0,3}-[0-9]{0,3}|[+-]?[0-9]{0,21}-[+-]?[0-9]{0,21}|18446744073709551615-1844674407370955161[0-9]|.*") {
            super::position(&text);
        }
    }
}
