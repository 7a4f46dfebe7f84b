//! One tree of typed settings: defaults, then a file, then `SLUICE_*` environment variables, then flags.
//!
//! What always holds: a [`Config`] from [`Config::load`] is valid as a whole, and whatever is wrong is reported at once
//! and not only the first of it. A setting is defined in one place (its type, default, allowed range and text, in
//! [`sections`]), and the reference, the environment names, the checks and the JSON of the admin port are made from
//! that definition. Nothing here opens a connection or binds a port.

mod auth_keys;
mod channel_rules;
mod checks;
mod layers;
mod lists;
mod problems;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod rate;
mod redis;
mod reference;
mod secret;
mod sections;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod values;

use std::path::PathBuf;

pub use auth_keys::{Algorithm, ApiKey, AuthKey};
pub use channel_rules::{Access, ChannelRule, Kept, RuleHistory, SlowPolicy};
pub use problems::ConfigErrors;
pub use rate::Rate;
pub use secret::{Secret, SecretUrl};
pub use sections::{
    Auth, Config, Cors, Drain, History, Http, Hub, Limits, Log, LogFormat, Memory, Outbox, Proxy, Redis, Stream, Tls,
    Traces,
};
pub use units::ByteSize;

use problems::Problems;
use settings::{Part, Reader};

/// Where settings come from. Later ones win: the file, the environment, the flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file. One that cannot be read is an error.
    pub file: Option<PathBuf>,
    /// The environment, whole; only names that begin with `SLUICE_` are looked at.
    pub env: Vec<(String, String)>,
    /// Path of a key (`redis.url`) and its value, as text.
    pub flags: Vec<(String, String)>,
}

/// A valid configuration, and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// Reads the file, and the files that it names (those of `[redis]` and `[tls]`); nothing else is touched.
    ///
    /// # Errors
    /// Everything that is wrong, one line each: what cannot be read or parsed, unknown keys of the file and flags,
    /// values out of their range, and values that contradict each other.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        let known = layers::Known::of(&Self::default().describe());

        let file = match &sources.file {
            Some(path) => layers::from_file(path, &known, &mut problems),
            None => Some(layers::Layer::default()),
        };
        let file_was_read = file.is_some();
        let env = layers::from_env(&sources.env, &known, &mut warnings);
        let flags = layers::from_flags(&sources.flags, &known, &mut problems);
        let merged = layers::merge([file.unwrap_or_default(), env, flags], &mut problems);

        let mut config = Self::read(&mut Reader::new(&merged, &mut problems));
        redis::take_from_files(&mut config.redis, sources.file.as_deref(), &mut problems);
        auth_keys::check(&mut config.auth, sources.file.as_deref(), &mut problems);
        tls::locate(&mut config.tls, sources.file.as_deref());
        // What a file that could not be read would have said is unknown, and so is whether the rest contradicts it.
        if file_was_read {
            checks::across(&config, &mut problems);
            checks::exposure(&config, &mut problems);
            tls::check(&config.tls, &mut problems);
            redis::check(&config.redis, &mut problems);
            checks::advice(&config, &mut warnings);
        }
        problems.into_result(Loaded { config, warnings })
    }

    /// Every key with its text, default and allowed values, as a TOML file in which all keys are commented out.
    #[must_use]
    pub fn reference() -> String {
        reference::toml()
    }

    /// All settings in effect, secrets hidden, in the form in which a file gives them (unset ones are `null`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.json()
    }
}
