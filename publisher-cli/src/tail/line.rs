//! Events as lines: text for people, one JSON object a line for programs.
//!
//! An event of the gateway's own (a gap, a heartbeat) is told from a published one of the same type by its data: only
//! what was published comes in an envelope.

use crate::{output, sse};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What an event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was published, and has been printed.
    Event,
    /// It speaks of the stream.
    Notice,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Gap {
    channel: String,
    reason: String,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a str,
    /// What `--last-event-id` takes; null while the stream has named none.
    id: Option<&'a str>,
}

#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    for_terminal: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json, for_terminal: output::stdout_is_terminal() }
    }

    /// Appends the event's line or lines, and says a gap on stderr where it is no line.
    pub(super) fn print(&self, event: &sse::Event, lines: &mut String) -> Kind {
        if let Ok(Envelope { channel, event: event_type, data }) = serde_json::from_str(&event.data) {
            self.line(&channel, &event_type, &data, &event.id, lines);
            return Kind::Event;
        }
        match event.event.as_str() {
            "gap" => {
                self.gap(event, lines);
                Kind::Notice
            }
            "heartbeat" | "connected" => Kind::Notice,
            // Some other server that knows no envelopes: what it sends is still worth showing.
            event_type => {
                self.line("", event_type, &event.data, &event.id, lines);
                Kind::Event
            }
        }
    }

    fn gap(&self, event: &sse::Event, lines: &mut String) {
        let gap = serde_json::from_str::<Gap>(&event.data).ok();
        if self.json {
            self.line(gap.as_ref().map_or("", |gap| &gap.channel), "gap", &event.data, &event.id, lines);
            return;
        }
        let message = match gap {
            Some(Gap { channel, reason, from, to }) => {
                let after = from.map(|from| format!(" after {from}")).unwrap_or_default();
                let before = to.map(|to| format!(" before {to}")).unwrap_or_default();
                format!("gap in {channel}{after}{before}: events may be missing ({reason})")
            }
            None => format!("gap: events may be missing ({})", event.data),
        };
        output::say(&output::printable(&message, true));
    }

    fn line(&self, channel: &str, event_type: &str, data: &str, id: &str, lines: &mut String) {
        if self.json {
            let line = JsonLine { channel, event: event_type, data, id: Some(id).filter(|id| !id.is_empty()) };
            // Strings alone always serialise.
            lines.push_str(&serde_json::to_string(&line).unwrap_or_default());
            lines.push('\n');
        } else {
            self.text(channel, event_type, data, lines);
        }
    }

    /// `[channel] data` or `[channel] type: data`, and data of several lines indented below.
    fn text(&self, channel: &str, event_type: &str, data: &str, lines: &mut String) {
        let mut head = String::new();
        if !channel.is_empty() {
            head = format!("[{channel}]");
        }
        if event_type != "message" {
            head.push_str(if head.is_empty() { "" } else { " " });
            head.push_str(&output::printable(event_type, self.for_terminal));
            head.push(':');
        }
        let is_one_line = !data.contains('\n');
        let (after_head, indent) = if is_one_line { (' ', "") } else { ('\n', "    ") };
        if !head.is_empty() {
            lines.push_str(&head);
            lines.push(after_head);
        }
        for piece in data.split('\n') {
            lines.push_str(indent);
            lines.push_str(&output::printable(piece, self.for_terminal));
            lines.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, event_type: &str, data: &str) -> (Kind, String) {
        let printer = Printer { json, for_terminal: true };
        let event = sse::Event { id: "c.1-1".into(), event: event_type.into(), data: data.into(), retry: None };
        let mut lines = String::new();
        let kind = printer.print(&event, &mut lines);
        (kind, lines)
    }

    #[test]
    fn text_is_legible() {
        for (data, line) in [
            (r#"{"channel":"a","event":"message","data":"x"}"#, "[a] x\n"),
            (r#"{"channel":"a","event":"add","data":"x: y"}"#, "[a] add: x: y\n"),
            (r#"{"channel":"a","event":"add","data":"x\n\ny"}"#, "[a] add:\n    x\n    \n    y\n"),
            (r#"{"channel":"a","event":"message","data":""}"#, "[a] \n"),
            (r#"{"channel":"a","event":"message","data":"\u001b[2J\t."}"#, "[a] \\u{1b}[2J\t.\n"),
        ] {
            assert_eq!(printed(false, "message", data), (Kind::Event, line.to_owned()));
        }
    }

    #[test]
    fn json_is_one_line_with_four_fields() {
        let (kind, line) = printed(true, "add", r#"{"channel":"a","event":"add","data":"x\ny"}"#);
        assert_eq!(kind, Kind::Event);
        assert_eq!(line, "{\"channel\":\"a\",\"event\":\"add\",\"data\":\"x\\ny\",\"id\":\"c.1-1\"}\n");
    }

    #[test]
    fn the_gateways_own_events_are_not_mistaken_for_published_ones() {
        let gap = r#"{"channel":"a","reason":"trimmed","from":"1-1","to":null}"#;
        let (kind, line) = printed(true, "gap", gap);
        assert_eq!(kind, Kind::Notice);
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&line["channel"], &line["event"], &line["data"]), (&"a".into(), &"gap".into(), &gap.into()));
        assert_eq!(printed(false, "gap", gap), (Kind::Notice, String::new()));
        assert_eq!(printed(true, "heartbeat", "{}"), (Kind::Notice, String::new()));
        let published = r#"{"channel":"a","event":"gap","data":"mind it"}"#;
        assert_eq!(printed(false, "gap", published), (Kind::Event, "[a] gap: mind it\n".to_owned()));
    }

    #[test]
    fn a_server_without_envelopes_is_shown_as_it_is() {
        assert_eq!(printed(false, "message", "plain"), (Kind::Event, "plain\n".to_owned()));
        assert_eq!(printed(false, "add", "plain"), (Kind::Event, "add: plain\n".to_owned()));
    }
}
