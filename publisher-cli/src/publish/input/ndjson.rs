//! One line of `--ndjson` input: `{"channel"?, "event"?, "data", "idempotency_key"?}`.
//!
//! What `sluice tail --json` prints can be read back: its `id` is taken and not used, as a position belongs to the
//! history that gave it. Any other name is refused: a slip in an optional one would publish something else than meant.

use super::super::Outgoing;
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sluice_gateway::{channel::Channel, event::Event};

/// What a line that does not say it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults<'a> {
    pub(super) channel: Option<&'a Channel>,
    pub(super) event_type: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    channel: Option<String>,
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    idempotency_key: Option<String>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
}

pub(super) fn read(line: &[u8], defaults: &Defaults<'_>) -> Result<Outgoing, String> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let channel = match (&fields.channel, defaults.channel) {
        (Some(name), _) => Channel::new(name).map_err(|e| e.to_string())?,
        (None, Some(channel)) => channel.clone(),
        (None, None) => return Err("it names no channel, and none was given as an argument".into()),
    };
    let event_type = fields.event.as_deref().or(defaults.event_type);
    let event = Event::new(event_type, Bytes::from(data(fields.data)?)).map_err(|e| e.to_string())?;
    if fields.idempotency_key.as_ref().is_some_and(|key| !(1..=128).contains(&key.len())) {
        return Err("an idempotency key is 1 to 128 bytes".into());
    }
    Ok(Outgoing { line: None, channel, event, idempotency_key: fields.idempotency_key })
}

/// A string as it is, any other value as compact JSON: what the gateway does with `data`.
fn data(value: &RawValue) -> Result<String, String> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str(json).map_err(|e| e.to_string());
    }
    // Not through a parsed value, which would round numbers and reorder names. It is valid JSON, so white space means
    // something only between quotes, and a backslash there takes the next character with it.
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string || !c.is_ascii_whitespace() {
            compact.push(c);
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
    }
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_DEFAULTS: Defaults<'_> = Defaults { channel: None, event_type: None };

    #[test]
    fn fields_and_defaults() {
        let news = Channel::new("news").expect("a name");
        let defaults = Defaults { channel: Some(&news), event_type: Some("update") };
        let plain = read(br#"{"data":"x"}"#, &defaults).expect("an event");
        assert_eq!((plain.channel.as_str(), plain.event.event_type()), ("news", Some("update")));
        let line = br#"{"channel":"b","event":"add","data":"y","idempotency_key":"k","id":"12-1"}"#;
        let full = read(line, &defaults).expect("an event");
        assert_eq!((full.channel.as_str(), full.event.event_type()), ("b", Some("add")));
        assert_eq!(full.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn a_string_is_itself_and_any_other_value_is_compact_json() {
        for (json, data) in [
            (r#""a\n\u00e9""#, "a\né"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("null", "null"),
            (r#"{ "b" : 1.10, "a" : [ 1 , "x \" y\\" , " z" ] }"#, r#"{"b":1.10,"a":[1,"x \" y\\"," z"]}"#),
        ] {
            let line = format!(r#"{{"channel":"a","data":{json}}}"#);
            assert_eq!(read(line.as_bytes(), &NO_DEFAULTS).expect("an event").event.data(), data);
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [
            "",
            "[]",
            r#"{"channel":"a"}"#,
            r#"{"data":"x"}"#,
            r#"{"chanel":"a","channel":"b","data":"x"}"#,
            r#"{"channel":"a b","data":"x"}"#,
            r#"{"channel":"a","event":"x\ny","data":"x"}"#,
            r#"{"channel":"a","data":"x","idempotency_key":""}"#,
            r#"{"channel":"a","data":"x"} {}"#,
        ] {
            assert!(read(line.as_bytes(), &NO_DEFAULTS).is_err(), "{line}");
        }
    }
}
