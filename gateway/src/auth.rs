//! Who may do what: keys, tokens, what tokens allow, and what is allowed to everyone.
//!
//! What always holds: without a key everything is allowed; with one, nothing is but what a `[[channel]]` rule gives to
//! anyone or a valid token names. A token that is there and not valid is never taken for none. Nothing here knows HTTP:
//! where a token stands in a request is [`crate::http`]'s.

mod api_keys;
mod claims;
pub mod denied;
mod jwks;
pub mod key;
mod keyring;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod token;

use crate::{
    channel::{Channel, Pattern},
    config::{Access, Config},
};
use api_keys::ApiKeys;
use denied::Denied;
use keyring::Keyring;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub use claims::{InvalidClaims, grants};
pub use token::Invalid;

/// What a token, or an API key, allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub subscribe: Vec<Pattern>,
    pub publish: Vec<Pattern>,
    /// Channels that its streams have without asking.
    pub join: Vec<Channel>,
    /// Counts, history of any channel, closing connections.
    pub admin: bool,
}

/// Whom a request comes from, as far as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The token's `sub`, by which its connections can be closed.
    pub subject: Option<Arc<str>>,
    /// The token's `jti`, by which it can be denied.
    pub token_id: Option<Arc<str>>,
    /// The token's `exp`.
    pub expires: Option<SystemTime>,
    /// `None` without a token.
    pub grants: Option<Grants>,
    /// The name of an API key.
    pub api_key: Option<Arc<str>>,
}

/// Something that not everyone may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Read,
    Publish,
}

/// Decides who may do what.
pub struct Auth {
    config: Arc<Config>,
    /// `None` while no key is configured: then everything is allowed.
    keys: Option<Keys>,
    denied: Arc<Denied>,
}

struct Keys {
    ring: Arc<Keyring>,
    api: Arc<ApiKeys>,
}

impl Auth {
    /// Reads all keys, and keeps them as their files and addresses have them. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a key cannot be read. (The configuration has been checked, so this is a file that changed since.)
    pub fn start(
        config: &Arc<Config>,
        metrics: &Arc<crate::metrics::Metrics>,
        denied: Arc<Denied>,
    ) -> Result<Self, key::InvalidKey> {
        let keys = if config.auth.has_keys() {
            let ring = Keyring::start(config, Arc::clone(metrics))?;
            Some(Keys { ring, api: Arc::new(ApiKeys::new(&config.auth.api_key)?) })
        } else {
            None
        };
        Ok(Self { config: Arc::clone(config), keys, denied })
    }

    /// Whether everything is allowed to everyone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    #[must_use]
    pub fn denied(&self) -> &Arc<Denied> {
        &self.denied
    }

    /// Who presents `token`: a JWT, or an API key.
    ///
    /// # Errors
    /// When it is not valid now. Where no key is configured there are no tokens, and anything is taken for none.
    pub fn identify(&self, token: &str) -> Result<Identity, Invalid> {
        let Some(keys) = &self.keys else { return Ok(Identity::default()) };
        if let Some(identity) = keys.api.find(token) {
            return Ok(identity);
        }
        let identity = keys.ring.identify(token, &self.config.auth, SystemTime::now())?;
        match &identity.token_id {
            Some(id) if self.denied.has(id) => Err(Invalid::Denied),
            Some(_) if !self.denied.is_known() => Err(Invalid::KeysUnavailable),
            _ => Ok(identity),
        }
    }

    /// Whether `identity` may do this to `channel`.
    #[must_use]
    pub fn allows(&self, identity: &Identity, act: Act, channel: &Channel) -> bool {
        if self.is_open() {
            return true;
        }
        let rule = self.config.rule_of(channel.as_str());
        let access = match act {
            Act::Read => rule.and_then(|rule| rule.read),
            Act::Publish => rule.and_then(|rule| rule.publish),
        };
        if access == Some(Access::Anyone) {
            return true;
        }
        let patterns = identity.grants.as_ref().map(|grants| match act {
            Act::Read => &grants.subscribe,
            Act::Publish => &grants.publish,
        });
        patterns.is_some_and(|patterns| patterns.iter().any(|pattern| pattern.matches(channel.as_str())))
    }

    /// Whether `identity` may count, read any history and close connections.
    #[must_use]
    pub fn is_admin(&self, identity: &Identity) -> bool {
        self.is_open() || identity.grants.as_ref().is_some_and(|grants| grants.admin)
    }
}

/// A subject as it stands in a channel's name, in `$user.<sub>` and for `{sub}`: what no name may hold is percent-encoded,
/// and so is `%`, so that no two subjects become one.
#[must_use]
pub fn subject_in_channel(subject: &str) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const ENCODED: &AsciiSet = &CONTROLS
        .add(b'%')
        .add(b' ')
        .add(b'"')
        .add(b'*')
        .add(b',')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'{')
        .add(b'|')
        .add(b'}')
        .add(b'`');
    utf8_percent_encode(subject, ENCODED).to_string()
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_becomes_part_of_a_name_and_no_pattern() {
        for (subject, part) in
            [("42", "42"), ("auth0|5f", "auth0%7C5f"), ("*", "%2A"), ("a%7Cb", "a%257Cb"), ("é ", "%C3%A9%20")]
        {
            assert_eq!(subject_in_channel(subject), part);
            assert!(Channel::new(&format!("$user.{part}")).is_ok());
        }
        for byte in 0x21..0x7fu8 {
            let name = format!("a{}", subject_in_channel(&char::from(byte).to_string()));
            assert!(Channel::new(&name).is_ok(), "{name}");
        }
    }
}
