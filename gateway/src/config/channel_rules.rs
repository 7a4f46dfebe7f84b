//! Rules by channel, `[[channel]]`: the first whose pattern matches holds.

use std::time::Duration;

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

use super::{
    Config, History,
    layers::inline,
    problems::{Problems, did_you_mean, show},
    sections::{history_age, history_size},
    settings::{Description, Part, Reader, Setting, Why, any, settings},
};
use crate::channel::Pattern;

/// What a rule says about history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleHistory {
    /// Nothing is kept, and events have no position.
    Off,
    /// This much is kept; what is left out is as in `[history]`.
    Keep { size: Option<u64>, age: Option<Duration> },
}

/// How much of a channel's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Events.
    pub size: u64,
    pub age: Duration,
}

impl RuleHistory {
    /// With what is left out filled in; `None` if nothing is kept.
    #[must_use]
    pub fn resolve(&self, defaults: &History) -> Option<Kept> {
        match self {
            Self::Off => None,
            Self::Keep { size, age } => {
                Some(Kept { size: size.unwrap_or(defaults.size), age: age.unwrap_or(defaults.age) })
            }
        }
    }
}

settings! {
    /// Rules for some channels. The first rule whose pattern matches a channel's name holds for it.
    pub struct ChannelRule {
        /// The channels it is for. Only a pattern that begins with $ matches reserved names ($all, $user.x).
        pub match_: Pattern = pattern("*"), any();
        /// What is kept of them; what is left out is as in [history].
        pub history: Option<RuleHistory> = None, any();
    }
}

/// A pattern of this file's own. A rule that names none has `*` until it is refused for that.
fn pattern(text: &'static str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

impl Config {
    /// What is kept of a channel's history: as the first rule that matches says, else as `[history]` says. Reserved
    /// channels (`$all` and so on) have none unless a rule gives them one.
    #[must_use]
    pub fn history_of(&self, channel: &str) -> Option<Kept> {
        let rule = self.channel.iter().find(|rule| rule.match_.matches(channel));
        match rule.and_then(|rule| rule.history.as_ref()) {
            Some(history) => history.resolve(&self.history),
            None if channel.starts_with('$') => None,
            None => Some(Kept { size: self.history.size, age: self.history.age }),
        }
    }
}

impl Part for Vec<ChannelRule> {
    fn read(reader: &mut Reader<'_>) -> Self {
        let Some(value) = reader.value() else {
            return Self::new();
        };
        // The environment and the flags have the whole list in one text.
        let from_text = match &value.kind {
            ValueKind::String(text) => inline(text, value.origin().unwrap_or_default()),
            _ => None,
        };
        let ValueKind::Array(rules) = &from_text.as_ref().unwrap_or(value).kind else {
            let path = reader.path().to_owned();
            let wrong =
                r#"must be a list of tables, [[channel]] in a file, or the like of [{match="a.*", history="off"}]"#;
            reader.problems.add_value(&path, &show(&value.kind), value.origin(), wrong);
            return Self::new();
        };
        let names: Vec<_> = example().describe().keys.into_iter().map(|key| key.name).collect();
        let path = reader.path().to_owned();
        let read = |(index, rule): (usize, &Value)| {
            let path = format!("{path}[{index}]");
            let origin = rule.origin();
            let ValueKind::Table(table) = &rule.kind else {
                reader.problems.add_value(&path, &show(&rule.kind), origin, "must be a table with at least `match`");
                return None;
            };
            refuse_unknown(&path, table, &names, reader.problems);
            if !table.contains_key("match") {
                let place = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
                reader
                    .problems
                    .add(&path, format!("{path}.match is missing{place}: a rule names the channels it is for"));
            }
            Some(ChannelRule::read(&mut Reader::at(path, Some(rule), reader.problems)))
        };
        rules.iter().enumerate().filter_map(read).collect()
    }

    fn describe(&self) -> Description {
        Description { list: true, ..example().describe() }
    }

    fn json(&self) -> Json {
        self.iter().map(Part::json).collect()
    }
}

/// The rule that the reference shows.
fn example() -> ChannelRule {
    let size_and_age = RuleHistory::Keep { size: Some(100), age: Some(Duration::from_secs(3600)) };
    ChannelRule { match_: pattern("orders.*"), history: Some(size_and_age) }
}

fn refuse_unknown(path: &str, table: &super::settings::Table, known: &[&str], problems: &mut Problems) {
    let mut unknown: Vec<_> = table.iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
    unknown.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in unknown {
        let place = value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default();
        let hint = did_you_mean(name, known.iter().copied());
        problems.add(path, format!("unknown key {path}.{name}{place}{hint}"));
    }
}

impl Setting for RuleHistory {
    fn kind() -> String {
        r#""off", or a table with size, age or both"#.to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) if text == "off" => Ok(Self::Off),
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        let Self::Keep { size, age } = self else {
            return "\"off\"".to_owned();
        };
        let size = size.map(|size| format!("size = {}", size.toml()));
        let age = age.map(|age| format!("age = {}", age.toml()));
        let parts: Vec<_> = size.into_iter().chain(age).collect();
        format!("{{ {} }}", parts.join(", "))
    }

    fn json(&self) -> Json {
        match self {
            Self::Off => "off".into(),
            Self::Keep { size, age } => serde_json::json!({ "size": size.json(), "age": age.json() }),
        }
    }

    fn parse_at(key: &str, value: &Value, problems: &mut Problems) -> Result<Self, Why> {
        let ValueKind::Table(table) = &value.kind else {
            return Self::parse(&value.kind);
        };
        refuse_unknown(key, table, &["size", "age"], problems);
        let size = table.get("size").map(|size| u64::read(&format!("{key}.size"), size, &history_size(), problems));
        let age = table.get("age").map(|age| Duration::read(&format!("{key}.age"), age, &history_age(), problems));
        Ok(Self::Keep { size: size.flatten(), age: age.flatten() })
    }
}
