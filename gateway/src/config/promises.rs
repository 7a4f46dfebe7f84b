//! Settings of any text: a configuration, or what is wrong with it, line by line; and a configuration that is written as
//! the admin port shows it, its secrets filled in, is the same one.

use super::{Config, ConfigErrors, Loaded, Sources};
use serde_json::Value as Json;

/// A file of these bytes, and variables of the environment.
pub fn config(file: &[u8], env: &[(String, String)]) {
    // Settings may name files, and are believed; some on this machine have no end.
    let names_a_device = |text: &[u8]| text.windows(4).any(|part| part == b"dev/" || part == b"proc");
    if names_a_device(file) || env.iter().any(|(_, value)| names_a_device(value.as_bytes())) {
        return;
    }
    match load(file, env) {
        Ok(loaded) => {
            let written = write(&loaded.config);
            match load(written.as_bytes(), &[]) {
                Ok(again) => assert_eq!(again.config, loaded.config, "{written}"),
                Err(problems) => panic!("{problems}\nin\n{written}"),
            }
        }
        Err(problems) => {
            let lines: Vec<_> = problems.iter().collect();
            assert!(!lines.is_empty() && lines.iter().all(|line| !line.trim().is_empty()));
            assert!(lines.iter().all(|line| !line.contains(char::is_control)), "each is one line: {lines:?}");
        }
    }
}

fn load(content: &[u8], env: &[(String, String)]) -> Result<Loaded, ConfigErrors> {
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(format!("sluice-promises-{process}-{thread:?}.toml"));
    std::fs::write(&path, content).expect("written");
    let loaded = Config::load(&Sources { file: Some(path.clone()), env: env.to_vec(), ..Sources::default() });
    std::fs::remove_file(path).expect("removed");
    loaded
}

/// As a file has it.
fn write(config: &Config) -> String {
    let mut json = config.to_json();
    if let Some(url) = &config.redis.url {
        json["redis"]["url"] = url.expose().into();
        // It may have stood in a file.
        json["redis"]["url_file"] = Json::Null;
    }
    let redis = &config.redis;
    for (name, urls) in [("sentinels", &redis.sentinels), ("cluster", &redis.cluster)] {
        json["redis"][name] = urls.iter().map(super::SecretUrl::expose).collect();
    }
    for (name, password) in [("password", &redis.password), ("sentinel_password", &redis.sentinel_password)] {
        if let Some(password) = password {
            json["redis"][name] = password.expose().into();
            json["redis"][format!("{name}_file")] = Json::Null;
        }
    }
    for (index, key) in config.auth.key.iter().enumerate() {
        json["auth"]["key"][index]["secret"] = key.secret.as_ref().map(super::Secret::expose).into();
    }
    for (index, key) in config.auth.api_key.iter().enumerate() {
        json["auth"]["api_key"][index]["key"] = key.key.as_ref().map(super::Secret::expose).into();
    }
    toml::to_string(&without_null(json)).expect("TOML")
}

fn without_null(json: Json) -> Json {
    match json {
        Json::Object(object) => object
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_null(value)))
            .collect(),
        Json::Array(entries) => entries.into_iter().map(without_null).collect(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::env_name;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "listen",
            "admin_listen",
            "admin_allow",
            "console",
            "auth.cookie",
            "auth.claim",
            "auth.key",
            "auth.api_key",
            "proxy.trusted",
            "redis.url",
            "redis.sentinels",
            "redis.cluster",
            "redis.password",
            "redis.prefix",
            "redis.timeout",
            "limits.connections_per_address",
            "limits.publish_rate_per_channel",
            "limits.event_bytes",
            "stream.max_age",
            "stream.heartbeat",
            "hub.shards",
            "history.size",
            "history.age",
            "channel",
            "cors.origins",
            "log.level",
            "log.format",
            "tls.certificate",
        ])
    }

    /// Values that are right for one key or another.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "127\\.0\\.0\\.1:[0-9]{1,5}|\\[::1\\]:90|true|auto|off|[0-9]{1,5}|[0-9]{1,3}(\\.[0-9]{1,9})?(ms|s|m|h|d|KiB|KB|MiB)|[0-9]{1,3}/[smh]( burst [0-9]{1,2})?",
            3 => "rediss?://([a-z]{1,3}:[!-~]{0,6}@)?db(:[0-9]{1,5})?(/[0-9])?|10\\.0\\.0\\.0/8, ?::1|https://a\\.example(:[0-9]{1,4})?|debug|(info,)?[a-z_]{1,6}(\\[[ -~]{0,6}\\])?=(trace|warn|[0-9])",
            2 => "[a-z0-9 _.*$:-]{0,12}|\\PC{0,12}",
        ]
    }

    /// The same for lists of tables, as TOML.
    fn list() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\[(\\{match = \"[a-z$.*]{1,4}\"(, history = (\"off\"|\\{( size = [0-9]{1,3})?\\}|\\{ age = \"[0-9]{1,3}(ms|s|m)\" \\}))?(, slow = \"(latest|drop-oldest)\")?(, read = \"(token|anyone)\")?\\},?){0,3}\\]",
            "\\[(\\{alg = \"(HS256|RS256)\", (secret = \"[ -!#-\\[\\]-~]{0,5}\"|jwks_url = \"https?://[a-z:@]{1,5}\")(, (kid|issuer|audience) = '[ -~&&[^']]{0,4}')?\\},?){0,3}\\]",
            "\\[(\\{name = \"[a-z]?\", key = \"[a-z]{14,17}\"(, publish = \\[\"[a-z.*]{0,3}\"\\])?(, admin = true)?\\},?){0,3}\\]",
            "\\[\\{?.{0,10}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_bytes_are_a_file_or_an_error(content: Vec<u8>) {
            super::config(&content, &[]);
        }

        #[test]
        fn what_is_valid_is_the_same_when_it_is_written(
            file in prop::collection::vec((key(), value()), 0..3),
            lists in prop::collection::vec((prop::sample::select(vec!["channel", "auth.key", "auth.api_key"]), list()), 0..2),
            env in prop::collection::vec((key(), prop_oneof![value(), list()]), 0..2),
            open in "auth.open = (true|false)\n|",
        ) {
            let mut text = open;
            for (key, value) in &file {
                text += &format!("{key} = {}\n", toml::Value::from(value.as_str()));
            }
            for (key, value) in &lists {
                text += &format!("{key} = {value}\n");
            }
            let env: Vec<_> = env.into_iter().map(|(key, value)| (env_name(key), value)).collect();
            super::config(text.as_bytes(), &env);
        }

        /// Bytes that look like a file, so that they get past the parser.
        #[test]
        fn any_values_are_valid_or_an_error(
            lines in prop::collection::vec(
                ("(redis\\.|stream\\.|channel\\.|\\[\\[channel\\]\\]\n|\\[hub\\]\n)?",
                 "(url|listen|match|history|shards|heartbeat|\"a\\[9{1,12}\\]\"|origins|[a-z_]{1,8})",
                 "(\"\\PC{0,12}\"|-?[0-9]{1,25}|0x[0-9a-f]{1,20}|1e[0-9]{1,4}|nan|\\{ (size|age) = [0-9]{1,3} \\}|\\[\\[\\{\\}\\]\\]|1979-05-27)"),
                0..6),
            env in "\\PC{0,20}|\\[\\{?.{0,10}",
        ) {
            let text: String = lines.iter().map(|(section, key, value)| format!("{section}{key} = {value}\n")).collect();
            let known = super::super::layers::Known::of(&super::super::settings::Part::describe(&super::Config::default()));
            let env: Vec<_> = known.paths().map(|path| (env_name(path), env.clone())).collect();
            super::config(text.as_bytes(), &[]);
            super::config(text.as_bytes(), &env);
        }
    }
}
