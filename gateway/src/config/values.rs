//! The types a setting can have: how each is read, written and named.
//!
//! Text is accepted for every type, as the environment and the flags have nothing else.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

use super::{
    layers::inline,
    problems::{Problems, show},
    sections::LogFormat,
    settings::{Setting, Why},
    units::{ByteSize, parse_bytes, parse_duration, show_duration},
};
use crate::{channel::Pattern, edge::networks::Networks};

fn text(value: &ValueKind) -> Result<&str, Why> {
    match value {
        ValueKind::String(text) => Ok(text),
        _ => Err(None),
    }
}

/// One of some words.
pub(super) fn words<T: Copy>(value: &ValueKind, words: &[(&str, T)]) -> Result<T, Why> {
    let given = text(value)?;
    words.iter().find(|(word, _)| *word == given).map(|(_, meant)| *meant).ok_or(None)
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn whole(value: &ValueKind) -> Result<u64, Why> {
    match value {
        ValueKind::I64(number) => u64::try_from(*number).map_err(|_| None),
        ValueKind::U64(number) => Ok(*number),
        ValueKind::String(text) => text.parse().map_err(|_| None),
        _ => Err(None),
    }
}

impl Setting for bool {
    const UNSET: &'static str = "auto";

    fn kind() -> String {
        "true or false".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::Boolean(value) => Ok(*value),
            other => text(other)?.parse().map_err(|_| None),
        }
    }

    fn toml(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Setting for u64 {
    fn kind() -> String {
        "a whole number".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        whole(value)
    }

    fn toml(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Setting for usize {
    const UNSET: &'static str = "off";

    fn kind() -> String {
        u64::kind()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        Self::try_from(whole(value)?).map_err(|_| None)
    }

    fn toml(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Setting for Duration {
    const UNSET: &'static str = "off";

    fn kind() -> String {
        "a duration".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) => parse_duration(text).ok_or(None),
            ValueKind::I64(_) | ValueKind::Float(_) => {
                Err(Some("a duration needs a unit: ms, s, m, h or d".to_owned()))
            }
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        quoted(&show_duration(*self))
    }

    fn json(&self) -> Json {
        show_duration(*self).into()
    }
}

impl Setting for ByteSize {
    fn kind() -> String {
        "a size".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) => parse_bytes(text).ok_or(None),
            number => usize::parse(number).map(Self::new),
        }
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

impl Setting for SocketAddr {
    fn kind() -> String {
        "an IP address and a port".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        text(value)?.parse().map_err(|_| None)
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

impl Setting for String {
    fn kind() -> String {
        "text".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        text(value).map(str::to_owned)
    }

    fn toml(&self) -> String {
        quoted(self)
    }

    fn json(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    fn kind() -> String {
        "the path of a file".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        text(value).map(Self::from)
    }

    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }

    fn json(&self) -> Json {
        self.to_string_lossy().into()
    }
}

impl Setting for Pattern {
    fn kind() -> String {
        "a channel's name, in which * may stand for any run of characters".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        Self::new(text(value)?).map_err(|_| None)
    }

    fn toml(&self) -> String {
        quoted(self.as_str())
    }

    fn json(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for LogFormat {
    fn kind() -> String {
        r#""text" or "json""#.to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        words(value, &[("text", Self::Text), ("json", Self::Json)])
    }

    fn toml(&self) -> String {
        quoted(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }

    fn json(&self) -> Json {
        self.toml().trim_matches('"').into()
    }
}

/// A list. As text it is a TOML array, or the entries with commas between them.
impl Setting for Vec<String> {
    fn kind() -> String {
        "a list".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::Array(entries) => entries.iter().map(|entry| String::parse(&entry.kind)).collect(),
            ValueKind::String(list) if list.trim_start().starts_with('[') => match inline(list, "") {
                Some(array) if matches!(array.kind, ValueKind::Array(_)) => Self::parse(&array.kind),
                _ => Err(Some("this is no TOML array".to_owned())),
            },
            ValueKind::String(list) => {
                Ok(list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
            }
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        let entries: Vec<_> = self.iter().map(|entry| quoted(entry)).collect();
        format!("[{}]", entries.join(", "))
    }

    fn json(&self) -> Json {
        self.as_slice().into()
    }

    fn show(value: &ValueKind) -> String {
        match value {
            ValueKind::Array(_) => Self::parse(value).map_or_else(|_| show(value), |list| list.toml()),
            other => show(other),
        }
    }
}

/// Patterns, as a list of texts.
impl Setting for Vec<Pattern> {
    fn kind() -> String {
        format!("a list, each {}", Pattern::kind())
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        let texts = Vec::<String>::parse(value)?;
        texts.iter().map(|text| Pattern::new(text).map_err(|error| Some(error.to_string()))).collect()
    }

    fn toml(&self) -> String {
        self.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>().toml()
    }

    fn json(&self) -> Json {
        self.iter().map(Pattern::as_str).collect()
    }

    fn show(value: &ValueKind) -> String {
        Vec::<String>::show(value)
    }
}

/// Written as the list that it is.
impl Setting for Networks {
    fn kind() -> String {
        "a list of networks (10.0.0.0/8, fd00::/8) or addresses".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        Self::parse(&<Vec<String> as Setting>::parse(value)?).map_err(Some)
    }

    fn toml(&self) -> String {
        self.texts().collect::<Vec<_>>().toml()
    }

    fn json(&self) -> Json {
        self.texts().collect()
    }

    fn show(value: &ValueKind) -> String {
        <Vec<String> as Setting>::show(value)
    }
}

/// What may be left unset. A word of the type's own says so, so that a later source can unset what an earlier one set.
impl<T: Setting> Setting for Option<T> {
    fn kind() -> String {
        match T::UNSET {
            "" => T::kind(),
            word => format!("\"{word}\", or {}", T::kind()),
        }
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) if text == T::UNSET => Ok(None),
            other => T::parse(other).map(Some),
        }
    }

    fn parse_at(key: &str, value: &Value, problems: &mut Problems) -> Result<Self, Why> {
        match &value.kind {
            ValueKind::String(text) if text == T::UNSET => Ok(None),
            _ => T::parse_at(key, value, problems).map(Some),
        }
    }

    fn toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted(T::UNSET), T::toml)
    }

    fn json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::json)
    }

    fn show(value: &ValueKind) -> String {
        T::show(value)
    }
}
