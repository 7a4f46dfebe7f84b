//! Texts with `{placeholders}`: URLs and bodies as each server wants them.

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Channel,
    Number,
    Data,
    Json,
}

const PLACEHOLDERS: [(&str, Piece); 4] =
    [("{channel}", Piece::Channel), ("{n}", Piece::Number), ("{data}", Piece::Data), ("{json}", Piece::Json)];

/// A text with its placeholders found. Other braces are text, so that JSON can be written as it is.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// Each a text and what follows it.
    pieces: Vec<(String, Option<Piece>)>,
}

/// What is put in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) channel: &'a str,
    pub(super) number: usize,
    pub(super) data: &'a [u8],
}

impl Template {
    pub(super) fn new(mut text: &str) -> Self {
        let mut pieces = Vec::new();
        loop {
            let found = PLACEHOLDERS
                .iter()
                .filter_map(|(name, piece)| Some((text.find(name)?, *name, *piece)))
                .min_by_key(|found| found.0);
            let Some((at, name, piece)) = found else { break };
            pieces.push((text[..at].to_owned(), Some(piece)));
            text = &text[at + name.len()..];
        }
        pieces.push((text.to_owned(), None));
        Self { pieces }
    }

    pub(super) fn render(&self, values: Values<'_>, into: &mut Vec<u8>) {
        for (text, piece) in &self.pieces {
            into.extend_from_slice(text.as_bytes());
            match piece {
                None => {}
                Some(Piece::Channel) => into.extend_from_slice(values.channel.as_bytes()),
                Some(Piece::Number) => into.extend_from_slice(values.number.to_string().as_bytes()),
                Some(Piece::Data) => into.extend_from_slice(values.data),
                // Data is made here and is UTF-8, so it can be a JSON string.
                Some(Piece::Json) => into.extend_from_slice(
                    serde_json::Value::from(String::from_utf8_lossy(values.data)).to_string().as_bytes(),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_and_other_braces_are_text() {
        let values = Values { channel: "news", number: 7, data: b"{\"a\":1}" };
        for (template, expected) in [
            ("", ""),
            ("/events?channel={channel}&n={n}", "/events?channel=news&n=7"),
            ("{\"channel\":\"{channel}\",\"data\":{json}}", "{\"channel\":\"news\",\"data\":\"{\\\"a\\\":1}\"}"),
            ("{{data}}{other}{channel", "{{\"a\":1}}{other}{channel"),
        ] {
            let mut text = Vec::new();
            Template::new(template).render(values, &mut text);
            assert_eq!(String::from_utf8_lossy(&text), expected, "{template}");
        }
    }
}
