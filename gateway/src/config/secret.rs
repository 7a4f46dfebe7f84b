//! The address of a Redis, which may hold a password: never shown, only exposed by name.

use std::fmt;

use ::config::ValueKind;

use super::{
    layers::inline,
    settings::{Setting, Why},
    values::quoted,
};
use crate::broker::redis::target::{self, InvalidTarget, SCHEMES, Target};

const HIDDEN: &str = "***";

/// A Redis URL that the Redis client accepts. Formatting and serialising it hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Checks a URL.
    ///
    /// # Errors
    /// When it does not say where a Redis is. The error does not repeat the URL.
    pub fn new(url: &str) -> Result<Self, InvalidTarget> {
        Target::parse(url).map(|_| Self(url.to_owned()))
    }

    /// The URL with its password, for the Redis client alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Setting for Secret {
    fn kind() -> String {
        "a text".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) => Ok(Self(text.clone())),
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        quoted(HIDDEN)
    }

    fn json(&self) -> serde_json::Value {
        HIDDEN.into()
    }

    fn show(_: &ValueKind) -> String {
        "(hidden)".to_owned()
    }
}

/// A URL without the passwords that it can hold: in the user info, or in the query where the address is a socket's.
fn hide(url: &str) -> String {
    if let Some(shown) = target::shown(url) {
        return shown;
    }
    let Some(mut parsed) = redis::parse_redis_url(url) else {
        return "(hidden)".to_owned();
    };
    // A password with a slash or a hash in it that is not escaped ends the host, and stands in what follows.
    if parsed.path().contains('@') || parsed.fragment().is_some() {
        return "(hidden)".to_owned();
    }
    // A URL without a host can hold no user info, and refuses this.
    if parsed.password().is_some() && parsed.set_password(Some(HIDDEN)).is_err() {
        return "(hidden)".to_owned();
    }
    if parsed.query().is_some() {
        let shown: Vec<(String, String)> = parsed
            .query_pairs()
            .map(|(name, value)| {
                // Only what is known to be harmless is shown: a misspelt `pass` is a password still.
                let harmless = matches!(&*name, "db" | "user" | "protocol");
                (name.into_owned(), if harmless { value.into_owned() } else { HIDDEN.to_owned() })
            })
            .collect();
        parsed.query_pairs_mut().clear().extend_pairs(shown);
    }
    parsed.to_string()
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", hide(&self.0))
    }
}

impl serde::Serialize for SecretUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Setting for SecretUrl {
    fn kind() -> String {
        format!("a URL that begins with {SCHEMES}")
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(url) => Self::new(url).map_err(|error| Some(error.to_string())),
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }

    fn json(&self) -> serde_json::Value {
        self.to_string().into()
    }

    fn show(value: &ValueKind) -> String {
        match value {
            ValueKind::String(url) => hide(url),
            _ => "(hidden)".to_owned(),
        }
    }
}

/// Several of them. As text it is a TOML array, or the URLs with commas between them.
impl Setting for Vec<SecretUrl> {
    fn kind() -> String {
        "a list of URLs, each of one server: redis://host:port, or rediss:// for TLS".to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        let one = |url: &str| match target::is_of_one(url) {
            true => SecretUrl::new(url).map_err(|error| Some(error.to_string())),
            false => Err(None),
        };
        match value {
            ValueKind::Array(entries) => entries
                .iter()
                .map(|entry| match &entry.kind {
                    ValueKind::String(url) => one(url),
                    _ => Err(None),
                })
                .collect(),
            ValueKind::String(list) if list.trim_start().starts_with('[') => match inline(list, "") {
                Some(array) if matches!(array.kind, ValueKind::Array(_)) => Self::parse(&array.kind),
                _ => Err(Some("this is no TOML array".to_owned())),
            },
            ValueKind::String(list) => list.split(',').map(str::trim).filter(|url| !url.is_empty()).map(one).collect(),
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        let entries: Vec<_> = self.iter().map(|url| quoted(&url.to_string())).collect();
        format!("[{}]", entries.join(", "))
    }

    fn json(&self) -> serde_json::Value {
        self.iter().map(ToString::to_string).collect()
    }

    /// Without what stands in it, if one of them is not understood: no part of it is known to be no password.
    fn show(value: &ValueKind) -> String {
        Self::parse(value).map_or_else(|_| "(hidden)".to_owned(), |urls| urls.toml())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "redis://user:hunter2@db:6379/1",
            "rediss://:hunter2@db",
            "unix:///run/redis.sock?db=1&pass=hunter2",
            "redis+unix:///run/redis.sock?user=me&pass=hunter2",
            "redis+sentinel://me:hunter2@s1,s2/mymaster",
            "rediss+cluster://me:hunter2@r1",
        ] {
            let secret = SecretUrl::new(url).expect(url);
            let json = serde_json::to_string(&secret).expect("JSON");
            for shown in [format!("{secret}"), format!("{secret:?}"), format!("{:?}", Some(&secret)), json] {
                assert!(!shown.contains("hunter2"), "{shown}");
                assert!(shown.contains("***"), "{shown}");
            }
            assert_eq!(secret.expose(), url);
        }
        assert_eq!(SecretUrl::new("redis://db:6379/1").expect("a URL").to_string(), "redis://db:6379/1");
        for misread in ["redis://user:6379/hunter2@db", "redis://user:12#hunter2@db", "redis://user:1/x#hunter2@db"] {
            assert!(!hide(misread).contains("hunter2"), "{misread}");
        }
        for wrong in ["hunter2", "http://:hunter2@db", "redis://:hunter2@db/x", "redis://:hunter2@0.0.0.0", ""] {
            let error = SecretUrl::new(wrong).expect_err(wrong).to_string();
            assert!(!error.contains("hunter2") && !hide(wrong).contains("hunter2"), "{error}");
        }
    }
}
