//! Channel names and the patterns that rules match them with.
//!
//! A [`Channel`] is always a valid name: the only ways to make one check it. Names are chosen so that none can break a
//! Redis hash tag (`{}`), a pattern (`*`) or a comma-separated list.

use sha2::{Digest, Sha256};
use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

/// The longest channel name, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// Visible ASCII that a name may not hold, beside everything that is not visible ASCII.
pub const FORBIDDEN: &str = "\"*,<>\\^{|}`";

/// The channel that every connection joins.
pub const ALL: &str = "$all";

/// The named topic that events are published to and clients subscribe to. Cheap to clone.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    name: Box<str>,
    key: OnceLock<CursorKey>,
}

/// A channel's short name in a cursor: the first 40 bits of the SHA-256 of its name, as 8 digits in base 36.
///
/// Fixed for ever: cursors outlive every deployment.
pub type CursorKey = [u8; 8];

/// Why a string is no channel name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannel {
    #[error("a channel name is 1 to {MAX_NAME_BYTES} bytes, this one is empty")]
    Empty,
    #[error("a channel name is 1 to {MAX_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a channel name is visible ASCII without {FORBIDDEN}, this one has {0:?} at byte {1}")]
    Character(char, usize),
    #[error("names that begin with `$` are reserved: only `$all`, `$user.<subject>` and `$conn.<id>` exist, not {0:?}")]
    Reserved(String),
}

impl Channel {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_NAME_BYTES`], has a byte that is not visible ASCII or is one of
    /// [`FORBIDDEN`], or begins with `$` and is no reserved name.
    pub fn new(name: &str) -> Result<Self, InvalidChannel> {
        check(name)?;
        Ok(Self::unchecked(name.into()))
    }

    fn unchecked(name: Box<str>) -> Self {
        Self(Arc::new(Inner { name, key: OnceLock::new() }))
    }

    /// The channel that every connection joins, `$all`.
    #[must_use]
    pub fn all() -> Self {
        Self::unchecked(ALL.into())
    }

    /// The channel of one connection, `$conn.<id>`.
    #[must_use]
    pub fn of_connection(id: &str) -> Self {
        Self::unchecked(format!("$conn.{id}").into())
    }

    /// The channel of all connections of a token's subject, `$user.<sub>`.
    ///
    /// # Errors
    /// When the subject is empty or too long.
    pub fn of_user(subject: &str) -> Result<Self, InvalidChannel> {
        Self::new(&format!("$user.{}", crate::auth::subject_in_channel(subject)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.name
    }

    /// The channel's name in a cursor, worked out once.
    #[must_use]
    pub fn cursor_key(&self) -> &CursorKey {
        self.0.key.get_or_init(|| {
            let digest = Sha256::digest(self.0.name.as_bytes());
            let mut bits = digest[..5].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            let mut key = [b'0'; 8];
            for digit in key.iter_mut().rev() {
                *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(bits % 36) as usize];
                bits /= 36;
            }
            key
        })
    }

    /// Whether this is one of the names that begin with `$`: joined without being asked for, never asked for.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.name.starts_with('$')
    }
}

fn check(name: &str) -> Result<(), InvalidChannel> {
    if name.is_empty() {
        return Err(InvalidChannel::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidChannel::TooLong(name.len()));
    }
    if let Some((at, bad)) = name.char_indices().find(|&(_, c)| !c.is_ascii_graphic() || FORBIDDEN.contains(c)) {
        return Err(InvalidChannel::Character(bad, at));
    }
    if name.starts_with('$') {
        let has_rest = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        if name != ALL && !has_rest("$user.") && !has_rest("$conn.") {
            return Err(InvalidChannel::Reserved(name.to_owned()));
        }
    }
    Ok(())
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Channel {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Channel {}

impl Hash for Channel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As `str` does: `Borrow<str>` needs the two to agree.
        self.as_str().hash(state);
    }
}

impl std::str::FromStr for Channel {
    type Err = InvalidChannel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl serde::Serialize for Channel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A pattern over channel names: `*` matches any run of characters, dots included; all else matches itself.
///
/// A pattern that does not begin with `$` matches no reserved name, so that `*` in a rule or a token never reaches
/// `$all` or another user's `$user.<sub>`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

/// Why a string is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a channel pattern is 1 to {MAX_NAME_BYTES} bytes of a channel name's characters and `*`, not {0:?}")]
pub struct InvalidPattern(String);

impl Pattern {
    /// # Errors
    /// When it is empty, too long, or has a character that no channel name has (other than `*`).
    pub fn new(pattern: &str) -> Result<Self, InvalidPattern> {
        let allowed = |c: char| c == '*' || (c.is_ascii_graphic() && !FORBIDDEN.contains(c));
        if pattern.is_empty() || pattern.len() > MAX_NAME_BYTES || !pattern.chars().all(allowed) {
            return Err(InvalidPattern(pattern.to_owned()));
        }
        Ok(Self(pattern.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `channel` is one of those that the pattern means. Linear in both lengths for one `*`, and never worse
    /// than their product.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        if channel.starts_with('$') && !self.0.starts_with('$') {
            return false;
        }
        let (pattern, name) = (self.0.as_bytes(), channel.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on if what follows the last `*` turns out not to match: that star, one more byte swallowed.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                retry = Some((p + 1, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((after_star, swallowed)) = retry {
                retry = Some((after_star, swallowed + 1));
                p = after_star;
                n = swallowed + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&b| b == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_design_are_names() {
        for name in ["orders.eu", "user:42", "https://example.com/books/1", "$all", "$user.7", "$conn.a1", "a"] {
            assert!(Channel::new(name).is_ok(), "{name}");
        }
        assert!(Channel::new(&"x".repeat(200)).is_ok());
    }

    #[test]
    fn what_would_break_a_list_a_pattern_or_a_hash_tag_is_refused() {
        for c in FORBIDDEN.chars().chain([' ', '\n', '\r', '\0', '\u{7f}', 'é']) {
            assert!(matches!(Channel::new(&format!("a{c}b")), Err(InvalidChannel::Character(bad, 1)) if bad == c));
        }
        assert_eq!(Channel::new(""), Err(InvalidChannel::Empty));
        assert_eq!(Channel::new(&"x".repeat(201)), Err(InvalidChannel::TooLong(201)));
        for name in ["$", "$x", "$user.", "$conn.", "$allx"] {
            assert!(matches!(Channel::new(name), Err(InvalidChannel::Reserved(_))), "{name}");
        }
    }

    #[test]
    fn a_star_matches_any_run_and_reserved_names_only_when_named() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).expect("a pattern").matches(name);
        assert!(matches("*", "orders.eu") && matches("orders.*", "orders.eu.x") && matches("*.eu", "orders.eu"));
        assert!(matches("a*b*c", "a-b-b-c") && matches("orders", "orders") && matches("o*", "o"));
        assert!(!matches("orders.*", "orders") && !matches("a*b", "a-b-c"));
        assert!(!matches("*", "$all") && !matches("*all", "$all"));
        assert!(matches("$*", "$all") && matches("$user.*", "$user.7") && !matches("$user.*", "$all"));
    }

    #[test]
    fn a_cursor_key_never_changes() {
        // From `printf news | sha256sum`: 0x19fba0e995 in base 36. Cursors in browsers hold these.
        let key = |name: &str| String::from_utf8_lossy(Channel::new(name).expect("a name").cursor_key()).into_owned();
        assert_eq!(key("news"), "1f9l9hg5");
        assert_ne!(key("news"), key("news2"));
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_agrees_with_the_obvious_definition(pattern in "[ab*]{1,8}", name in "[ab]{1,12}") {
            fn obvious(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        obvious(rest, name) || (!name.is_empty() && obvious(pattern, &name[1..]))
                    }
                    (Some((a, rest)), Some((b, others))) if a == b => obvious(rest, others),
                    _ => false,
                }
            }
            let parsed = Pattern::new(&pattern).expect("a pattern");
            proptest::prop_assert_eq!(parsed.matches(&name), obvious(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
