//! Keys: `[[auth.key]]` that tokens are signed with, and `[[auth.api_key]]`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ::config::ValueKind;
use serde_json::Value as Json;

use super::{
    Auth, Secret,
    lists::Entry,
    problems::Problems,
    settings::{Setting, Why, any, settings},
    values::{quoted, words},
};
use crate::{auth::key, channel::Pattern};

/// How tokens are signed (RFC 7518, 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

impl Algorithm {
    /// The algorithm of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, alg)| *alg)
    }

    #[must_use]
    pub fn names() -> Vec<&'static str> {
        ALGORITHMS.iter().map(|(name, _)| *name).collect()
    }

    /// Whether who can verify can sign as well.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHMS.iter().find(|(_, alg)| alg == self).map_or("", |(name, _)| name))
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(alg: Algorithm) -> Self {
        match alg {
            Algorithm::HS256 => Self::HS256,
            Algorithm::HS384 => Self::HS384,
            Algorithm::HS512 => Self::HS512,
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

impl Setting for Algorithm {
    fn kind() -> String {
        format!("one of {}", Self::names().join(", "))
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        words(value, &ALGORITHMS)
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

settings! {
    /// Keys that tokens are signed with. A token is valid if one of them has signed it, with that key's algorithm, and its claims are what that key demands.
    pub struct AuthKey {
        /// The algorithm of the signatures. A token that says another is not tried against this key.
        pub alg: Algorithm = Algorithm::HS256, any();
        /// The secret, for HS256 to HS512. Better in a file.
        pub secret: Option<Secret> = None, any();
        /// A file that holds the secret; one line break at its end is none of it. Read again when it changes.
        pub secret_file: Option<PathBuf> = None, any();
        /// The public key in PEM, for the other algorithms.
        pub public_key: Option<String> = None, any();
        /// A file that holds the public key in PEM. Read again when it changes.
        pub public_key_file: Option<PathBuf> = None, any();
        /// Where the issuer publishes its keys (JWKS).
        pub jwks_url: Option<String> = None, any();
        /// The key's id; then a token that names another (`kid`) is not tried against it.
        pub kid: Option<String> = None, any();
        /// What `iss` of its tokens must be.
        pub issuer: Option<String> = None, any();
        /// What `aud` of its tokens must be, or have in it.
        pub audience: Option<String> = None, any();
    }
}

settings! {
    /// Keys for publishers that have no use for tokens: shown as `Authorization: Bearer <key>` or `X-API-Key: <key>`.
    pub struct ApiKey {
        /// What the log calls it.
        pub name: String = String::new(), any();
        /// The key itself, 16 bytes or more. Better in a file.
        pub key: Option<Secret> = None, any();
        /// A file that holds the key; one line break at its end is none of it. Read at start.
        pub key_file: Option<PathBuf> = None, any();
        /// Patterns of channels that may be published to.
        pub publish: Vec<Pattern> = Vec::new(), any();
        /// Patterns of channels that may be subscribed to.
        pub subscribe: Vec<Pattern> = Vec::new(), any();
        /// Whether it may count, read any history and close connections.
        pub admin: bool = false, any();
    }
}

impl Entry for AuthKey {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("alg", "a key verifies signatures of one algorithm")];
    const AS_TEXT: &'static str = r#"[{alg="HS256", secret_file="hs.key"}]"#;

    fn example() -> Self {
        Self {
            secret_file: Some("hs.key".into()),
            issuer: Some("https://id.example.com".to_owned()),
            audience: Some("sluice".to_owned()),
            ..Self::default()
        }
    }
}

impl Entry for ApiKey {
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "the log calls a key by it")];
    const AS_TEXT: &'static str = r#"[{name="billing", key_file="billing.key", publish=["orders.*"]}]"#;

    fn example() -> Self {
        Self {
            name: "billing".to_owned(),
            key_file: Some("billing.key".into()),
            publish: vec![Pattern::new("orders.*").expect("a pattern")],
            ..Self::default()
        }
    }
}

impl AuthKey {
    /// The file that the key is in.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.secret_file.as_deref().or(self.public_key_file.as_deref())
    }
}

impl Auth {
    /// Whether anything is configured that a token, or a key, could be verified with.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.key.is_empty() || !self.api_key.is_empty()
    }
}

/// The shortest API key: 16 bytes by chance cannot be guessed.
const MIN_API_KEY_BYTES: usize = 16;

/// Finds the files of keys, and checks that each key can be used.
pub(super) fn check(auth: &mut Auth, file: Option<&Path>, problems: &mut Problems) {
    for (index, key) in auth.key.iter_mut().enumerate() {
        let path = format!("auth.key[{index}]");
        for file_of in [&mut key.secret_file, &mut key.public_key_file].into_iter().flatten() {
            beside(file, file_of);
        }
        if !problems.concern(&path) {
            check_key(&path, key, problems);
        }
    }
    let mut names: Vec<&str> = Vec::new();
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for (index, key) in auth.api_key.iter_mut().enumerate() {
        let path = format!("auth.api_key[{index}]");
        if let Some(file_of) = &mut key.key_file {
            beside(file, file_of);
        }
        if problems.concern(&path) {
            continue;
        }
        if names.contains(&key.name.as_str()) {
            problems.add(&path, format!("{path}.name = {:?}: another key has that name", key.name));
        }
        match (&key.key, &key.key_file) {
            (Some(_), Some(_)) => problems.add(&path, format!("{path} has key and key_file: leave one of them out")),
            (None, None) => problems.add(&path, format!("{path} has no key: give key_file, or key")),
            _ => match key::secret(key.key.as_ref(), key.key_file.as_deref()) {
                Err(error) => problems.add(&path, format!("{path}: {error}")),
                Ok(secret) if secret.len() < MIN_API_KEY_BYTES => {
                    problems.add(&path, format!("{path}: the key must have at least {MIN_API_KEY_BYTES} bytes"));
                }
                Ok(secret) if secrets.contains(&secret) => {
                    problems.add(&path, format!("{path}: another key is the same, and could not be told from it"));
                }
                Ok(secret) => secrets.push(secret),
            },
        }
        names.push(&key.name);
    }
    if auth.open && auth.has_keys() && !problems.concern("auth.open") {
        let wrong = "auth.open = true: keys are configured, which say who may do what; leave one of them out";
        problems.add("auth.open", wrong);
    }
}

/// A path stands beside the file that names it, if there is something there, else in the working directory.
pub(super) fn beside(config: Option<&Path>, path: &mut PathBuf) {
    if let Some(directory) = config.and_then(Path::parent)
        && path.is_relative()
        && directory.join(&*path).exists()
    {
        *path = directory.join(&*path);
    }
}

fn check_key(path: &str, key: &AuthKey, problems: &mut Problems) {
    let sources = [
        ("secret", key.secret.is_some()),
        ("secret_file", key.secret_file.is_some()),
        ("public_key", key.public_key.is_some()),
        ("public_key_file", key.public_key_file.is_some()),
        ("jwks_url", key.jwks_url.is_some()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    let allowed: &[&str] = if key.alg.is_symmetric() {
        &["secret", "secret_file"]
    } else {
        &["public_key", "public_key_file", "jwks_url"]
    };
    let alg = key.alg;
    match given[..] {
        [] => return problems.add(path, format!("{path} has no key: {alg} needs one of {}", allowed.join(", "))),
        [one] if allowed.contains(&one) => {}
        [one] => {
            return problems.add(path, format!("{path}.{one}: {alg} needs one of {} instead", allowed.join(", ")));
        }
        _ => return problems.add(path, format!("{path} has {}: leave all but one out", given.join(" and "))),
    }
    if let Some(url) = &key.jwks_url {
        match reqwest::Url::parse(url) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                problems.add(path, format!("{path}.jwks_url: must hold no password, as it is shown in the log"));
            }
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => {}
            _ => problems.add(path, format!("{path}.jwks_url: must be a URL that begins with https:// or http://")),
        }
    }
    if let Err(error) = key::verifying(key) {
        problems.add(path, format!("{path}: {error}"));
    }
}
