//! What the settings of Redis must be to each other and to the files that they name.

use super::{Redis, Secret, SecretUrl, auth_keys::beside, problems::Problems, settings::Setting};
use crate::broker::redis::target::{Credentials, InvalidTarget, Target, TlsFiles};
use std::path::{Path, PathBuf};

impl Redis {
    /// Whether there is one, and not the embedded broker.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || !self.sentinels.is_empty() || !self.cluster.is_empty()
    }

    /// Where it is and how to be let in; `None` without one. Reads the files of TLS.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn target(&self) -> Result<Option<Target>, (&'static str, String)> {
        let exposed = |urls: &[SecretUrl]| urls.iter().map(|url| url.expose().to_owned()).collect::<Vec<_>>();
        let at = |key| move |error: InvalidTarget| (key, error.to_string());
        let target = if let Some(url) = &self.url {
            Target::parse(url.expose()).map_err(at("redis.url"))?
        } else if !self.sentinels.is_empty() {
            let urls = exposed(&self.sentinels);
            let urls: Vec<_> = urls.iter().map(String::as_str).collect();
            Target::by_sentinels(&urls, &self.master).map_err(at("redis.sentinels"))?
        } else if !self.cluster.is_empty() {
            let urls = exposed(&self.cluster);
            let urls: Vec<_> = urls.iter().map(String::as_str).collect();
            Target::by_cluster(&urls).map_err(at("redis.cluster"))?
        } else {
            return Ok(None);
        };
        let credentials = |username: &Option<String>, password: &Option<Secret>| Credentials {
            username: username.clone(),
            password: password.as_ref().map(|password| password.expose().to_owned()),
        };
        let target = target
            .with_credentials(&credentials(&self.username, &self.password), self.database)
            .map_err(at("redis.database"))?
            .with_sentinel_credentials(&credentials(&self.sentinel_username, &self.sentinel_password));
        let read = |key: &'static str, path: &PathBuf| {
            std::fs::read(path).map_err(|error| (key, format!("{}: cannot be read: {error}", path.display())))
        };
        let ca = self.ca.as_ref().map(|path| read("redis.ca", path)).transpose()?;
        let client = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read("redis.certificate", certificate)?, read("redis.key", key)?)),
            _ => None,
        };
        let key = if ca.is_some() { "redis.ca" } else { "redis.certificate" };
        target.with_tls(&TlsFiles { ca, client }).map(Some).map_err(at(key))
    }
}

/// Sets what files hold, and finds the files of TLS beside the file that names them.
pub(super) fn take_from_files(redis: &mut Redis, config: Option<&Path>, problems: &mut Problems) {
    let url = match content("redis.url", redis.url.is_some(), "redis.url_file", &redis.url_file, problems) {
        Some((shown, content)) => match SecretUrl::new(content.trim()) {
            Ok(url) => Some(url),
            Err(why) => {
                let wrong = format!("the file must hold {} ({why})", SecretUrl::kind());
                problems.add("redis.url_file", format!("redis.url_file = \"{shown}\": {wrong}"));
                None
            }
        },
        None => None,
    };
    redis.url = redis.url.take().or(url);
    let files = [
        ("redis.password", &mut redis.password, "redis.password_file", &redis.password_file),
        (
            "redis.sentinel_password",
            &mut redis.sentinel_password,
            "redis.sentinel_password_file",
            &redis.sentinel_password_file,
        ),
    ];
    for (key, password, file_key, file) in files {
        if let Some((_, content)) = content(key, password.is_some(), file_key, file, problems) {
            // An editor ends a file with a line's end, which no password means.
            *password = Some(Secret::new(content.trim_end_matches(['\r', '\n'])));
        }
    }
    for path in [&mut redis.ca, &mut redis.certificate, &mut redis.key].into_iter().flatten() {
        beside(config, path);
    }
}

/// What a file holds that stands in a setting's place, and its path.
fn content(
    key: &str,
    is_set: bool,
    file_key: &str,
    path: &Option<PathBuf>,
    problems: &mut Problems,
) -> Option<(String, String)> {
    let path = path.as_ref()?;
    if is_set || problems.concern(key) {
        problems.add(file_key, format!("{key} and {file_key} are both set: leave one of them out"));
        return None;
    }
    let shown = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(content) => Some((shown, content)),
        Err(error) => {
            problems.add(file_key, format!("{file_key} = \"{shown}\": cannot be read: {error}"));
            None
        }
    }
}

pub(super) fn check(redis: &Redis, problems: &mut Problems) {
    let places = [
        ("redis.url", redis.url.is_some()),
        ("redis.sentinels", !redis.sentinels.is_empty()),
        ("redis.cluster", !redis.cluster.is_empty()),
    ];
    let set: Vec<_> = places.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect();
    if let [first, second, ..] = set.as_slice() {
        problems.add(second, format!("{first} and {second} are both set: leave one of them out"));
        return;
    }
    let mut streams = redis.intake.clone();
    streams.sort();
    if let Some(twice) = streams.windows(2).find(|two| two[0] == two[1]) {
        problems.add("redis.intake", format!("redis.intake: {:?} is there twice", twice[0]));
    }
    for (key, is_set, needed, has_needed) in [
        ("redis.certificate", redis.certificate.is_some(), "redis.key", redis.key.is_some()),
        ("redis.key", redis.key.is_some(), "redis.certificate", redis.certificate.is_some()),
    ] {
        if is_set && !has_needed {
            problems.add(key, format!("{key} is set: it needs {needed} beside it"));
            return;
        }
    }
    if ["redis.url", "redis.url_file", "redis.sentinels", "redis.cluster"].iter().any(|key| problems.concern(key)) {
        return;
    }
    if let Err((key, why)) = redis.target() {
        problems.add(key, format!("{key}: {why}"));
    }
    if redis.wait_replicas > 0 && !redis.is_configured() {
        problems.add(
            "redis.wait_replicas",
            format!(
                "redis.wait_replicas = {}: there is no Redis: set redis.url, redis.sentinels or redis.cluster",
                redis.wait_replicas
            ),
        );
    }
    if redis.wait_replicas > 0 && redis.wait_timeout >= redis.timeout {
        let (wait, all) = (redis.wait_timeout.toml(), redis.timeout.toml());
        problems.add(
            "redis.wait_timeout",
            format!("redis.wait_timeout = {wait}: must be less than redis.timeout, which is {all}"),
        );
    }
}
