//! Rules by channel, `[[channel]]`: the first whose pattern matches holds.

use std::time::Duration;

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

use super::{
    Config, History,
    lists::{Entry, refuse_unknown},
    problems::Problems,
    sections::{history_age, history_size},
    settings::{Setting, Why, any, settings},
    values::words,
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

/// What is done when more waits for a client than its outbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowPolicy {
    /// Its stream ends; it comes back and is sent what it missed.
    Disconnect,
    /// The oldest of what waits is dropped, and the client is told by a gap.
    DropOldest,
    /// Of what waits the newest event of each type is kept, and the client is told by a gap.
    Latest,
}

impl SlowPolicy {
    pub const ALL: [Self; 3] = [Self::Disconnect, Self::DropOldest, Self::Latest];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop-oldest",
            Self::Latest => "latest",
        }
    }
}

/// Whom a rule lets do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Anyone,
    /// Who has a token that allows it.
    Token,
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
        /// What is done for a client that reads more slowly than events come: it is disconnected (and resumes), or goes on with a gap and without the oldest events that wait for it, or with the newest of each type alone. By default the first with history, the second without.
        pub slow: Option<SlowPolicy> = None, any();
        /// Who may subscribe and read history, once a key is configured: anyone, or who has a token that names the channel.
        pub read: Option<Access> = None, any();
        /// Who may publish, once a key is configured.
        pub publish: Option<Access> = None, any();
    }
}

/// A pattern of this file's own. A rule that names none has `*` until it is refused for that.
fn pattern(text: &'static str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

impl Config {
    /// The first rule that matches.
    #[must_use]
    pub fn rule_of(&self, channel: &str) -> Option<&ChannelRule> {
        self.channel.iter().find(|rule| rule.match_.matches(channel))
    }

    /// What is done for slow clients of a channel.
    #[must_use]
    pub fn slow_of(&self, channel: &str) -> SlowPolicy {
        let default = || match self.history_of(channel) {
            Some(_) => SlowPolicy::Disconnect,
            // Who comes back is sent nothing that it missed, and is not told: better that it goes on, and is.
            None => SlowPolicy::DropOldest,
        };
        self.rule_of(channel).and_then(|rule| rule.slow).unwrap_or_else(default)
    }

    /// What is kept of a channel's history: as the first rule that matches says, else as `[history]` says. Reserved
    /// channels (`$all` and so on) have none unless a rule gives them one.
    #[must_use]
    pub fn history_of(&self, channel: &str) -> Option<Kept> {
        match self.rule_of(channel).and_then(|rule| rule.history.as_ref()) {
            Some(history) => history.resolve(&self.history),
            None if channel.starts_with('$') => None,
            None => Some(Kept { size: self.history.size, age: self.history.age }),
        }
    }
}

impl Entry for ChannelRule {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("match", "a rule names the channels it is for")];
    const AS_TEXT: &'static str = r#"[{match="a.*", history="off"}]"#;

    fn example() -> Self {
        let size_and_age = RuleHistory::Keep { size: Some(100), age: Some(Duration::from_secs(3600)) };
        Self {
            match_: pattern("orders.*"),
            history: Some(size_and_age),
            slow: Some(SlowPolicy::Disconnect),
            read: Some(Access::Token),
            publish: Some(Access::Token),
        }
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

impl Setting for Access {
    fn kind() -> String {
        r#""anyone" or "token""#.to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        words(value, &[("anyone", Self::Anyone), ("token", Self::Token)])
    }

    fn toml(&self) -> String {
        match self {
            Self::Anyone => "\"anyone\"",
            Self::Token => "\"token\"",
        }
        .to_owned()
    }

    fn json(&self) -> Json {
        self.toml().trim_matches('"').into()
    }
}

impl Setting for SlowPolicy {
    fn kind() -> String {
        r#""disconnect", "drop-oldest" or "latest""#.to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        words(value, &Self::ALL.map(|policy| (policy.as_str(), policy)))
    }

    fn toml(&self) -> String {
        format!("\"{}\"", self.as_str())
    }

    fn json(&self) -> Json {
        self.as_str().into()
    }
}
