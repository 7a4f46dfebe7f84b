//! What the configuration promises: one order of sources, everything wrong at once, a reference that is true.

use std::{io::Write, time::Duration};

use super::{
    layers::env_name,
    settings::{Description, Part},
    *,
};

/// A file that lasts as long as the test holds it.
fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(content.as_ref()).expect("written");
    file
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_file(content: impl AsRef<[u8]>) -> Result<Loaded, ConfigErrors> {
    let file = file(content);
    Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
}

fn load_env(env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    Config::load(&Sources { env: pairs(env), ..Sources::default() })
}

/// The problems, with the temporary file's directory taken out.
fn problems(result: Result<Loaded, ConfigErrors>) -> Vec<String> {
    result.expect_err("problems").iter().map(str::to_owned).collect()
}

/// Paths of all keys but those of lists, and their defaults as TOML.
fn all_keys() -> Vec<(String, String)> {
    let Description { keys, parts, .. } = Config::default().describe();
    let top = keys.into_iter().map(|key| (key.name.to_owned(), key.value));
    let sections = parts.into_iter().filter(|(_, part)| !part.list).flat_map(|(name, part)| {
        part.keys.into_iter().map(move |key| (format!("{name}.{}", key.name), key.value)).collect::<Vec<_>>()
    });
    top.chain(sections).collect()
}

/// A value for each key that is allowed and not its default.
fn another_value(path: &str, default: &str) -> String {
    let value = match path {
        "listen" => "127.0.0.1:9000",
        "admin_listen" => "[::1]:9001",
        "console" | "auth.open" | "proxy.protocol" | "tls.publish_needs_certificate" => "true",
        "admin_allow" | "proxy.trusted" => "10.0.0.0/8",
        "stream.compression" => "false",
        "redis.url" => "redis://db/1",
        "redis.sentinels" | "redis.cluster" => "rediss://db",
        "redis.master"
        | "redis.username"
        | "redis.password"
        | "redis.sentinel_username"
        | "redis.sentinel_password"
        | "redis.intake" => "other",
        "redis.wait_timeout" => "1.5s",
        "redis.url_file"
        | "redis.password_file"
        | "redis.sentinel_password_file"
        | "redis.ca"
        | "redis.certificate"
        | "redis.key"
        | "tls.certificate"
        | "tls.key"
        | "tls.client_ca" => "/nowhere",
        "redis.prefix" => "other:",
        "stream.max_age" => "1h",
        "cors.origins" => "https://a.example",
        "traces.otlp" => "http://collector:4318",
        "traces.service" => "events",
        "log.format" => "json",
        "log.level" => "debug",
        "history.age" => "11m",
        "redis.gather" => "3ms",
        "stream.retry_max" => "4s",
        "limits.event_bytes" => "32KiB",
        _ if default.contains("iB\"") => "128KiB",
        _ if default.ends_with("s\"") || default.ends_with("m\"") || default.ends_with("d\"") => "2.5s",
        _ => "7",
    };
    match path {
        "stream.retry_min" => "1.5s".to_owned(),
        _ if path.starts_with("limits.connect_rate") || path.starts_with("limits.publish_rate") => "10/s".to_owned(),
        "history.memory" => "2d".to_owned(),
        "outbox.max_bytes" | "hub.tail_bytes" => "128KiB".to_owned(),
        _ if default.contains("MiB\"") => "2MiB".to_owned(),
        _ => value.to_owned(),
    }
}

/// The value at a path of a configuration's JSON.
fn at<'a>(json: &'a serde_json::Value, path: &str) -> &'a serde_json::Value {
    json.pointer(&format!("/{}", path.replace('.', "/"))).expect(path)
}

#[test]
fn the_reference_says_the_defaults() {
    let reference = Config::reference();
    let untouched = load_file(&reference).expect("the reference is a file");
    assert_eq!(untouched.config, Config::default());

    let uncommented: String = reference
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(uncommented.matches("\n#").count() + all_keys().len(), reference.matches("\n#").count());
    assert_eq!(load_file(&uncommented).expect("every default is allowed").config, Config::default());
}

#[test]
fn the_reference_shows_a_rule_that_is_valid() {
    let example: String = Config::reference()
        .lines()
        .filter_map(|line| line.strip_prefix("#     "))
        .map(|line| format!("{line}\n"))
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    for secret in ["hs.key", "billing.key"] {
        std::fs::write(directory.path().join(secret), "0123456789abcdef").expect("written");
    }
    let file = directory.path().join("sluice.toml");
    std::fs::write(&file, &example).expect("written");
    let sources = Sources { file: Some(file), ..Sources::default() };
    let config = Config::load(&sources).expect("the example").config;
    assert_eq!((config.channel.len(), config.auth.key.len(), config.auth.api_key.len()), (1, 1, 1));
    // Every key that a rule has is in the example, and has a value there.
    let serde_json::Value::Object(rule) = config.channel[0].json() else { panic!("an object") };
    for (key, value) in rule {
        assert!(example.contains(&format!("\n{key} = ")) && !value.is_null(), "{key}");
    }
}

#[test]
fn every_field_has_its_line_in_the_reference() {
    let reference = Config::reference();
    let mut section = String::new();
    let mut lines = std::collections::BTreeSet::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            assert!(key.starts_with(' ') || lines.insert(format!("{section}{key}")), "{key} twice in [{section}]");
        }
    }
    // Debug names the fields as the structs have them, whatever their descriptions say.
    let mut section = String::new();
    let mut fields = std::collections::BTreeSet::new();
    for line in format!("{:#?}", Config::default()).lines() {
        let name = line.split(':').next().unwrap_or_default();
        match name.len() - name.trim_start().len() {
            4 if line.ends_with('{') => section = format!("{}.", name.trim()),
            4 if line.contains(": ") => _ = fields.insert(name.trim().to_owned()),
            8 if line.contains(": ") => _ = fields.insert(format!("{section}{}", name.trim())),
            _ => {}
        }
    }
    assert!(fields.remove("channel") && fields.remove("auth.key") && fields.remove("auth.api_key"));
    assert_eq!(lines, fields);
}

/// What is wrong with a setting that is of no use alone.
fn complaint_alone(path: &str) -> Option<&'static str> {
    match path {
        "redis.certificate" | "redis.key" => Some(" is set: it needs "),
        "redis.wait_replicas" => Some(": there is no Redis: set redis.url"),
        _ if path.starts_with("redis.") && path.ends_with("_file") => Some("\"/nowhere\": cannot be read"),
        _ if path.starts_with("tls.") => Some(" is set: it needs tls."),
        _ => None,
    }
}

#[test]
fn every_key_can_be_set_by_file_environment_and_flag() {
    for (path, default) in all_keys() {
        let value = another_value(&path, &default);
        let before = Config::default().to_json();
        let file = file(match path.as_str() {
            "cors.origins" | "admin_allow" | "proxy.trusted" | "redis.sentinels" | "redis.cluster" | "redis.intake" => {
                format!("{path} = [\"{value}\"]")
            }
            _ => format!("{path} = \"{value}\""),
        });
        let name = env_name(&path);
        let by_file = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let by_env = Sources { env: pairs(&[(&name, &value)]), ..Sources::default() };
        let by_flag = Sources { flags: pairs(&[(path.as_str(), value.as_str())]), ..Sources::default() };
        let mut seen = Vec::new();
        for sources in [by_file, by_env, by_flag] {
            if let Some(complaint) = complaint_alone(&path) {
                let found = problems(Config::load(&sources));
                assert!(found.len() == 1 && found[0].starts_with(&path) && found[0].contains(complaint), "{found:?}");
                continue;
            }
            let loaded = Config::load(&sources).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(loaded.warnings.is_empty(), path != "proxy.protocol", "{:?}", loaded.warnings);
            let json = loaded.config.to_json();
            assert_ne!(at(&json, &path), at(&before, &path), "{path}");
            seen.push(loaded.config);
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{path}");
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = file("[redis]\nprefix = \"file:\"\npool = 3\ntimeout = \"1s\"\n[[channel]]\nmatch = \"a\"\n");
    let loaded = Config::load(&Sources {
        file: Some(file.path().to_owned()),
        env: pairs(&[
            ("SLUICE_REDIS__PREFIX", "env:"),
            ("SLUICE_REDIS__POOL", "4"),
            ("SLUICE_CHANNEL", r#"[{match = "b.*", history = {size = 5}}, {match = "c", history = "off"}]"#),
            ("HOME", "/"),
        ]),
        flags: pairs(&[("redis.prefix", "flag:")]),
    })
    .expect("valid");
    let Config { redis, channel, stream, .. } = loaded.config;
    assert_eq!((redis.prefix.as_str(), redis.pool, redis.timeout), ("flag:", 4, Duration::from_secs(1)));
    assert_eq!((redis.grace, stream), (Duration::from_secs(5), Stream::default()));
    // A list is replaced as a whole.
    assert_eq!(channel.len(), 2);
    assert_eq!(channel[0].history, Some(RuleHistory::Keep { size: Some(5), age: None }));
    assert_eq!(channel[1].history, Some(RuleHistory::Off));
}

#[test]
fn everything_wrong_is_said_at_once_and_with_its_place() {
    let file = file(
        "heartbeat = \"5s\"\n\
         redis = 5\n\
         [stream]\n\
         hartbeat = \"5s\"\n\
         retry_min = \"20m\"\n\
         retry_max = 5\n\
         [hub]\n\
         shards = 257\n\
         [[channel]]\n\
         match = \"a b\"\n\
         [[channel]]\n\
         history = { size = 0, age = \"400d\", sise = 1 }\n\
         [[channel]]\n\
         match = \"x\"\n\
         history = { age = \"8d\" }\n",
    );
    let found = problems(Config::load(&Sources {
        file: Some(file.path().to_owned()),
        env: pairs(&[("SLUICE_LIMITS__CHANNELS_PER_CONNECTION", "1025"), ("SLUICE_LISTEN", "localhost")]),
        flags: pairs(&[("auth.opne", "true"), ("admin_listen", "0.0.0.0:8081")]),
    }));
    let name = file.path().display();
    let expected = [
        format!("unknown key heartbeat ({name}:1); did you mean stream.heartbeat?"),
        format!("redis = 5 ({name}:2): is a section of settings, written [redis]"),
        format!("unknown key stream.hartbeat ({name}:4); did you mean stream.heartbeat?"),
        "unknown key auth.opne (command line); did you mean auth.open?".to_owned(),
        "listen = \"localhost\" (SLUICE_LISTEN): must be an IP address and a port".to_owned(),
        "limits.channels_per_connection = \"1025\" (SLUICE_LIMITS__CHANNELS_PER_CONNECTION): must be a whole number from 1 to 1024".to_owned(),
        format!("stream.retry_min = \"20m\" ({name}:5): must be a duration from 10ms to 10m"),
        format!("stream.retry_max = 5 ({name}:6): must be a duration from 10ms to 10m (a duration needs a unit: ms, s, m, h or d)"),
        format!("hub.shards = 257 ({name}:8): must be a whole number from 0 to 64"),
        format!("channel[0].match = \"a b\" ({name}:10): must be a channel's name, in which * may stand for any run of characters"),
        format!("channel[1].match is missing ({name}:11): a rule names the channels it is for"),
        format!("unknown key channel[1].history.sise ({name}:12); did you mean size?"),
        format!("channel[1].history.size = 0 ({name}:12): must be a whole number from 1 to 10000000"),
        format!("channel[1].history.age = \"400d\" ({name}:12): must be a duration from 1s to 365d"),
        "channel[2].history.age = \"8d\": must be at most history.memory, which is \"7d\"".to_owned(),
    ];
    for line in &expected {
        assert!(found.contains(line), "{line}\nnot in\n{}", found.join("\n"));
    }
    assert!(
        found.iter().any(|line| line.starts_with("admin_listen = \"0.0.0.0:8081\": others can reach")),
        "{found:?}"
    );
    assert_eq!(found.len(), expected.len() + 1, "{}", found.join("\n"));
}

#[test]
fn a_syntax_error_names_file_line_and_column_and_not_the_line() {
    let file = file("listen = \"127.0.0.1:1\"\n[redis]\nurl = \"redis://:hunter2@db\nprefix = \n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        env: pairs(&[("SLUICE_REDIS__POOL", "many")]),
        ..Sources::default()
    };
    let found = problems(Config::load(&sources));
    let name = file.path().display();
    assert!(found[0].starts_with(&format!("{name}:3:")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with(&format!("{name}:4:"))), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("redis.pool = \"many\"")), "{found:?}");
    assert!(!found.concat().contains("hunter2"), "{found:?}");

    let found = problems(load_file(b"a = 1\nb = \"\xff\""));
    assert!(found.len() == 1 && found[0].ends_with(":2:6: not UTF-8"), "{found:?}");
    let found = problems(Config::load(&Sources { file: Some("/nowhere/x.toml".into()), ..Sources::default() }));
    assert!(found.len() == 1 && found[0].starts_with("/nowhere/x.toml: cannot be read: "), "{found:?}");
}

#[test]
fn unknown_variables_are_warnings_and_unknown_keys_are_errors() {
    let loaded = load_env(&[
        ("SLUICE_PORT", "tcp://10.0.0.1:80"),
        ("SLUICE_SERVICE_HOST", "10.0.0.1"),
        ("SLUICE_REDIS_URL", "redis://db"),
        ("SLUICE_URL", "http://localhost:8080"),
    ])
    .expect("valid");
    assert_eq!(
        loaded.warnings,
        [
            "environment variable SLUICE_PORT is no setting and is ignored",
            "environment variable SLUICE_SERVICE_HOST is no setting and is ignored",
            "environment variable SLUICE_REDIS_URL is no setting and is ignored; did you mean SLUICE_REDIS__URL?",
        ]
    );
    assert_eq!(loaded.config, Config::default());
    // A path is no expression: this must neither be followed nor allocate.
    let found = problems(load_file("\"redis[999999999999].url\" = 1\n\"channel[999999999999]\" = 1"));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn an_address_that_others_reach_needs_open() {
    for key in ["SLUICE_LISTEN", "SLUICE_ADMIN_LISTEN"] {
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            let found = problems(load_env(&[(key, address)]));
            assert!(found.len() == 1 && found[0].contains("auth.open") && found[0].contains("--open"), "{found:?}");
            load_env(&[(key, address), ("SLUICE_AUTH__OPEN", "true")]).expect("said to be meant");
        }
        for address in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            load_env(&[(key, address)]).expect("loopback");
        }
    }
}

#[test]
fn a_secret_comes_from_a_file_and_is_hidden() {
    let secret = file("  redis://user:hunter2@db:6379/2\n");
    let path = secret.path().to_str().expect("a path");
    let config = load_env(&[("SLUICE_REDIS__URL_FILE", path)]).expect("valid").config;
    assert_eq!(config.redis.url.as_ref().map(SecretUrl::expose), Some("redis://user:hunter2@db:6379/2"));
    let json = config.to_json();
    assert_eq!(at(&json, "redis.url"), "redis://user:***@db:6379/2");
    assert!(!format!("{config:?}{json}").contains("hunter2"));

    let both = problems(load_env(&[("SLUICE_REDIS__URL_FILE", path), ("SLUICE_REDIS__URL", "redis://db")]));
    assert_eq!(both, ["redis.url and redis.url_file are both set: leave one of them out"]);
    let secret = file("postgres://user:hunter2@db");
    let path = secret.path().to_str().expect("a path");
    for env in [("SLUICE_REDIS__URL_FILE", path), ("SLUICE_REDIS__URL", "redis://:hunter2@db/nodb")] {
        let found = problems(load_env(&[env]));
        assert!(found.len() == 1 && found[0].contains("redis://") && !found[0].contains("hunter2"), "{found:?}");
    }
    // A later source can unset what an earlier one set.
    assert_eq!(load_env(&[("SLUICE_REDIS__URL", "")]).expect("valid").config.redis.url, None);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (env, keys) in [
        ([("SLUICE_STREAM__RETRY_MIN", "4s"), ("SLUICE_LOG__LEVEL", "info")], ["stream.retry_min", "stream.retry_max"]),
        ([("SLUICE_HISTORY__AGE", "2h"), ("SLUICE_HISTORY__MEMORY", "1h")], ["history.age", "history.memory"]),
        (
            [("SLUICE_LIMITS__EVENT_BYTES", "2MiB"), ("SLUICE_OUTBOX__MAX_BYTES", "4MiB")],
            ["limits.event_bytes", "limits.batch_bytes"],
        ),
        (
            [("SLUICE_LIMITS__BODY_BYTES", "1MiB"), ("SLUICE_LIMITS__BATCH_BYTES", "2MiB")],
            ["limits.batch_bytes", "limits.body_bytes"],
        ),
        ([("SLUICE_LISTEN", "127.0.0.1:8081"), ("SLUICE_LOG__LEVEL", "info")], ["admin_listen", "listen"]),
    ] {
        let found = problems(load_env(&env));
        assert!(found.len() == 1 && keys.iter().all(|key| found[0].contains(key)), "{found:?}");
    }
    load_env(&[("SLUICE_LISTEN", "127.0.0.1:0"), ("SLUICE_ADMIN_LISTEN", "127.0.0.1:0")]).expect("free ports differ");
}

#[test]
fn certificates_are_read_and_checked_before_anything_is_bound() {
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (mine, other) = (pair(), pair());
    let (certificate, key) = (file(mine.cert.pem()), file(mine.signing_key.serialize_pem()));
    let (other_key, empty) = (file(other.signing_key.serialize_pem()), file(""));
    let broken = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().expect("a path").to_owned();
    let with = |certificate: &str, key: &str, client_ca: &str| {
        load_env(&[
            ("SLUICE_TLS__CERTIFICATE", certificate),
            ("SLUICE_TLS__KEY", key),
            ("SLUICE_TLS__CLIENT_CA", client_ca),
        ])
    };
    let good = with(&path(&certificate), &path(&key), &path(&certificate)).expect("good files").config;
    assert!(good.tls.files().is_some());
    for ([certificate, key, client_ca], wrong) in [
        (["/nowhere", &path(&key), ""], "tls.certificate = \"/nowhere\": cannot be read"),
        ([&path(&certificate), "/nowhere", ""], "tls.key = \"/nowhere\": cannot be read"),
        ([&path(&certificate), &path(&key), "/nowhere"], "tls.client_ca = \"/nowhere\": cannot be read"),
        ([&path(&empty), &path(&key), ""], "there is no certificate in it"),
        ([&path(&broken), &path(&key), ""], "is no X.509 certificate"),
        ([&path(&certificate), &path(&certificate), ""], "there is no private key in it"),
        ([&path(&certificate), &path(&other_key), ""], "does not belong to the certificate"),
        ([&path(&certificate), &path(&key), &path(&empty)], "there is no certificate in it"),
        ([&path(&certificate), &path(&key), &path(&broken)], "has no authority's certificate"),
    ] {
        let found = problems(with(certificate, key, client_ca));
        assert!(found.len() == 1 && found[0].starts_with("tls.") && found[0].contains(wrong), "{wrong}: {found:?}");
    }
}

#[test]
fn networks_are_read_and_what_could_be_meant_in_two_ways_is_refused() {
    let config = load_file("[proxy]\ntrusted = [\"10.0.0.0/8\", \"::1\"]\nhops = 2\n").expect("valid").config;
    assert_eq!(at(&config.to_json(), "proxy.trusted"), &serde_json::json!(["10.0.0.0/8", "::1"]));
    assert!(config.proxy.trusted.contain([10, 1, 2, 3].into()));
    let found = problems(load_env(&[("SLUICE_PROXY__TRUSTED", "10.0.0.1/8")]));
    assert_eq!(
        found,
        ["proxy.trusted = \"10.0.0.1/8\" (SLUICE_PROXY__TRUSTED): must be a list of networks (10.0.0.0/8, fd00::/8) \
          or addresses (\"10.0.0.1/8\" is an address within 10.0.0.0/8)"]
    );
}

#[test]
fn the_first_rule_that_matches_says_what_is_kept() {
    let config = load_file(
        "[[channel]]\nmatch = \"orders.eu\"\nhistory = \"off\"\n\
         [[channel]]\nmatch = \"orders.*\"\nhistory = { size = 5 }\n\
         [[channel]]\nmatch = \"$all\"\nhistory = { age = \"1m\" }\n",
    )
    .expect("valid")
    .config;
    let ten_minutes = Duration::from_secs(600);
    assert_eq!(config.history_of("orders.eu"), None);
    assert_eq!(config.history_of("orders.us"), Some(Kept { size: 5, age: ten_minutes }));
    assert_eq!(config.history_of("news"), Some(Kept { size: 1000, age: ten_minutes }));
    assert_eq!(config.history_of("$all"), Some(Kept { size: 1000, age: Duration::from_secs(60) }));
    assert_eq!(config.history_of("$user.7"), None);
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_that_does_not_show_it() {
    for (keys, wrong) in [
        ("[[auth.key]]\nsecret = \"hunter2\"", "auth.key[0].alg is missing"),
        ("[[auth.key]]\nalg = \"none\"", "auth.key[0].alg = \"none\""),
        ("[[auth.key]]\nalg = \"HS256\"", "auth.key[0] has no key: HS256 needs one of secret, secret_file"),
        ("[[auth.key]]\nalg = \"HS256\"\nsecret = \"\"", "auth.key[0]"),
        ("[[auth.key]]\nalg = \"RS256\"\nsecret = \"hunter2\"", "auth.key[0].secret: RS256 needs one of public_key"),
        (
            "[[auth.key]]\nalg = \"RS256\"\npublic_key = \"hunter2\"",
            "auth.key[0]: there is no public key in PEM for RS256",
        ),
        (
            "[[auth.key]]\nalg = \"HS256\"\nsecret = \"hunter2\"\nsecret_file = \"x\"",
            "auth.key[0] has secret and secret_file: leave all but one out",
        ),
        ("[[auth.key]]\nalg = \"HS256\"\nsecret_file = \"/nowhere\"", "auth.key[0]: /nowhere: cannot be read"),
        ("[[auth.key]]\nalg = \"HS256\"\nsecrets = \"hunter2\"", "unknown key auth.key[0].secrets"),
        ("[[auth.key]]\nalg = \"RS256\"\njwks_url = \"ftp://a\"", "auth.key[0].jwks_url"),
        ("[[auth.key]]\nalg = \"RS256\"\njwks_url = \"https://u:hunter2@a\"", "auth.key[0].jwks_url"),
        (
            "[[auth.key]]\nalg = \"HS256\"\nsecret = \"-----BEGIN PUBLIC KEY-----\\nhunter2\"",
            "auth.key[0]: this is a key or certificate in PEM",
        ),
        (
            "[[auth.api_key]]\nname = \"a\"\nkey = \"hunter2hunter2hunter2\"\n\
             [[auth.api_key]]\nname = \"b\"\nkey = \"hunter2hunter2hunter2\"",
            "auth.api_key[1]: another key is the same",
        ),
        ("[[auth.api_key]]\nname = \"a\"\nkey = \"hunter2\"", "auth.api_key[0]: the key must have at least 16 bytes"),
        ("[[auth.api_key]]\nname = \"a\"", "auth.api_key[0] has no key"),
        ("[[auth.api_key]]\nkey = \"hunter2hunter2hunter2\"", "auth.api_key[0].name is missing"),
        ("[auth]\nopen = true\n[[auth.key]]\nalg = \"HS256\"\nsecret = \"hunter2\"", "auth.open = true: keys are"),
    ] {
        let found = problems(load_file(keys)).join("\n");
        assert!(found.contains(wrong) && !found.contains("hunter2"), "{keys}\n{found}");
    }
    let loaded = load_file(
        "listen = \"0.0.0.0:80\"\nadmin_listen = \"0.0.0.0:81\"\n[[auth.key]]\nalg = \"HS256\"\nsecret = \"hunter2\"",
    );
    let loaded = loaded.expect("with keys, others may reach it");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("shorter than 32 bytes")), "{:?}", loaded.warnings);
    let shown = format!("{:?} {} {:?}", loaded.config, loaded.config.to_json(), loaded.warnings);
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
}
