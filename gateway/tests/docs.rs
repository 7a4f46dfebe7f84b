//! The documents against the code: what they name exists, and what exists is named.
//!
//! Metrics, setting keys with their defaults, environment variables, paths with their methods, problem types, and the
//! reasons of gaps and disconnects, in both directions. Whether what is said of them is true, no test here knows.

use sluice_gateway::{
    config::{Config, Sources},
    metrics::{Metrics, Reason},
    server::{self, Listeners},
    sse::frame::GapReason,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Attributes of spans that look like settings.
const OTHER_ATTRIBUTES: [&str; 1] = ["http.route"];

/// Variables that begin as the gateway's do and are no settings of it: the command line client's, the tests', and the
/// file's path.
const OTHER_VARIABLES: [&str; 8] = [
    "SLUICE_BUILD_DIR",
    "SLUICE_URL",
    "SLUICE_TOKEN",
    "SLUICE_SEED",
    "SLUICE_CHAOS_SECONDS",
    "SLUICE_CHAOS_KINDS",
    "SLUICE_REDIS_URL",
    "SLUICE_CONFIG",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every document, by its path from the root.
fn documents() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder").flatten() {
            let name = Path::new(folder).join(entry.file_name()).display().to_string();
            if name.ends_with(".md") {
                found.insert(name, fs::read_to_string(entry.path()).expect("UTF-8"));
            }
        }
    }
    assert!(found.contains_key("README.md") && found.contains_key("docs/http.md"), "{:?}", found.keys());
    found
}

fn document(name: &str) -> String {
    documents().remove(name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// Runs of characters that `belongs`, each that begins with `prefix`.
fn words<'a>(text: &'a str, prefix: &'a str, belongs: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.split(move |c| !belongs(c)).filter(move |word| word.starts_with(prefix) && word.len() > prefix.len())
}

/// What stands in backticks within a line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The cells of each row of the tables, if it begins with a quoted name.
fn rows(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name, cells[1..].to_vec()))
    })
}

/// The text of a source file, or of all below a folder.
fn source(path: &str) -> String {
    fn read(path: &Path, into: &mut String) {
        if path.is_dir() {
            fs::read_dir(path).expect("a folder").flatten().for_each(|entry| read(&entry.path(), into));
        } else {
            into.push_str(&fs::read_to_string(path).expect("UTF-8"));
        }
    }
    let mut text = String::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path), &mut text);
    text
}

/// Metrics with their types and labels, as a replica shows them.
fn metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let metrics = Metrics::new();
    // A metric with labels is shown from its first value on, and these have none at the start.
    metrics.refused.with_label_values(&["draining"]).inc();
    metrics.problems.with_label_values(&["too-large"]).inc();
    metrics.tell_redis("127.0.0.1:6379", "redis", "7.0.15");
    metrics.intake_held.with_label_values(&["sluice:intake"]).set(1);
    let text = String::from_utf8(metrics.render()).expect("UTF-8");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{')
            && let Some((_, labels)) = found.get_mut(name)
        {
            let pairs = rest.split('}').next().unwrap_or_default().split(',');
            labels.extend(pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
        }
    }
    found
}

#[test]
fn every_metric_is_documented_as_it_is_and_no_other() {
    let metrics = metrics();
    let made: BTreeSet<_> = ["metrics.rs", "metrics"]
        .iter()
        .flat_map(|path| source(path).split('"').map(str::to_owned).collect::<Vec<_>>())
        .filter(|text| text.starts_with("sse_") && text.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    for name in &made {
        assert!(metrics.contains_key(name), "{name} has no value at the start: give it one in `metrics` above");
    }

    let page = document("docs/metrics.md");
    let described: BTreeMap<_, _> = rows(&page).filter(|(name, _)| name.contains('_')).collect();
    for (name, (kind, labels)) in &metrics {
        let cells = described.get(name.as_str()).unwrap_or_else(|| panic!("docs/metrics.md lacks {name}"));
        assert_eq!(cells[0], kind, "the type of {name} in docs/metrics.md");
        let told: BTreeSet<_> = quoted(cells[1]).map(str::to_owned).collect();
        assert_eq!(&told, labels, "the labels of {name} in docs/metrics.md");
    }

    for (file, text) in documents() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in words(&text, "sse_", is_name).chain(words(&text, "process_", is_name)) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            let exists = metrics.contains_key(word) || base.is_some_and(|base| metrics.contains_key(base));
            // `sse_*` and the like mean many.
            assert!(exists || word.ends_with('_'), "{file} names the metric {word}, which does not exist");
        }
    }
}

/// Keys with their defaults as the reference has them, and the keys of the lists.
fn keys() -> (BTreeMap<String, String>, BTreeSet<String>) {
    let (mut keys, mut of_lists, mut section) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in Config::reference().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.strip_prefix("#     ").and_then(|rest| rest.split_once(" = ")) {
            assert!(!value.is_empty());
            of_lists.insert(key.to_owned());
        } else if let Some((key, value)) = line.strip_prefix('#').and_then(|rest| rest.split_once(" = "))
            && !key.starts_with(' ')
        {
            keys.insert(format!("{section}{key}"), value.to_owned());
        }
    }
    assert!(keys.len() > 30 && of_lists.contains("match"), "{keys:?} {of_lists:?}");
    (keys, of_lists)
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let (keys, of_lists) = keys();
    let page = document("docs/configuration.md");
    let told: BTreeMap<_, _> =
        rows(&page).map(|(key, cells)| (key.to_owned(), cells[0].trim_matches('`').to_owned())).collect();
    for (key, default) in &keys {
        assert_eq!(told.get(key), Some(default), "{key} and its default in docs/configuration.md");
    }
    for key in &of_lists {
        assert!(quoted(&page).any(|word| word == key), "docs/configuration.md lacks `{key}` of [[channel]]");
    }

    let sections: BTreeSet<_> = keys.keys().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    for (file, text) in documents() {
        for word in quoted(&text) {
            // `auth.open = true` names a key too; `hub.rs` and `redis.md` are files.
            let word = word.split(" = ").next().unwrap_or_default();
            let Some((section, name)) = word.split_once('.') else { continue };
            let is_key = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_other = matches!(name, "rs" | "md" | "lua") || OTHER_ATTRIBUTES.contains(&word);
            if sections.contains(section) && is_key && !is_other {
                assert!(keys.contains_key(word), "{file} names the key {word}, which does not exist");
            }
        }
        for word in words(&text, "SLUICE_", |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            let key = word["SLUICE_".len()..].to_lowercase().replace("__", ".");
            // Lists are settings as a whole; what ends in `_` stands for many.
            let known = keys.contains_key(&key)
                || ["channel", "auth.key", "auth.api_key"].contains(&&*key)
                || OTHER_VARIABLES.contains(&word);
            assert!(known || word.ends_with('_'), "{file} names {word}, which is no setting");
        }
    }
}

#[test]
fn every_problem_type_is_documented_and_no_other() {
    const URN: &str = "urn:sluice:problem:";
    let code = source("http");
    let types: BTreeSet<_> =
        code.split("Self::new(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect();
    assert!(types.contains("too-large") && code.contains(URN), "{types:?}");
    let is_urn = |c: char| c.is_ascii_lowercase() || c == '-' || c == ':';
    let page = document("docs/http.md");
    for slug in &types {
        assert!(words(&page, URN, is_urn).any(|word| &word[URN.len()..] == slug), "docs/http.md lacks {URN}{slug}");
    }
    for (file, text) in documents() {
        for word in words(&text, URN, is_urn) {
            assert!(types.contains(&word[URN.len()..]), "{file} names {word}, which does not exist");
        }
    }
}

#[test]
fn every_reason_is_documented() {
    let delivery = document("docs/delivery.md");
    for reason in GapReason::ALL {
        assert!(rows(&delivery).any(|(name, _)| name == reason.as_str()), "docs/delivery.md lacks {reason:?}");
    }
    let metrics = document("docs/metrics.md");
    for reason in Reason::ALL.iter().map(|reason| reason.as_str()).chain(GapReason::ALL.iter().map(|r| r.as_str())) {
        assert!(quoted(&metrics).any(|word| word == reason), "docs/metrics.md lacks `{reason}`");
    }
}

/// What stands for the method of a URL.
const ANY: &str = "any";

/// Method and path of every request that a text names: `GET /channels/{channel}`, or a URL, whose method is [`ANY`].
fn requests(text: &str) -> BTreeSet<(String, String)> {
    let path_of = |rest: &str| {
        let end = rest.find(|c: char| c.is_whitespace() || "`'\")|?#>".contains(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches(['.', ',', ':', ';']).to_owned()
    };
    let mut found = BTreeSet::new();
    for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
        for (at, _) in text.match_indices(&format!("{method} /")) {
            found.insert((method.to_owned(), path_of(&text[at + method.len() + 1..])));
        }
    }
    for host in ["127.0.0.1:8080/", "127.0.0.1:8081/"] {
        for (at, _) in text.match_indices(host) {
            found.insert((ANY.to_owned(), path_of(&text[at + host.len() - 1..])));
        }
    }
    found
}

/// The head of the answer to a request.
async fn ask(to: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read_buf(&mut answer).await.expect("an answer");
        assert!(count > 0, "{method} {path} was cut off: {answer:?}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
}

/// The methods of a path, as `Allow` has them.
fn allowed(answer: &str) -> Vec<String> {
    let allow = answer.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
    allow.split(", ").filter(|method| !matches!(*method, "" | "HEAD" | "OPTIONS")).map(str::to_owned).collect()
}

/// The methods that the gateway knows at `path`, none if it does not know the path.
async fn methods(public: SocketAddr, admin: SocketAddr, path: &str) -> Vec<String> {
    let path = ["{channel}", "{id}", "{sub}"].iter().fold(path.to_owned(), |path, name| path.replace(name, "docs"));
    let answer = ask(public, "OPTIONS", &path).await;
    if status(&answer) != 404 {
        return allowed(&answer);
    }
    // A method that none of its paths takes, so that nothing is done.
    let answer = ask(admin, "PATCH", &path).await;
    if status(&answer) == 404 { Vec::new() } else { allowed(&answer) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_is_named_exists_and_every_method_is_named() {
    let flag = |key: &str| (key.to_owned(), "127.0.0.1:0".to_owned());
    let sources = Sources { flags: vec![flag("listen"), flag("admin_listen")], ..Sources::default() };
    let config = Config::load(&sources).expect("a configuration").config;
    let listeners = Listeners::bind(&config).expect("free ports");
    let public = listeners.public.local_addr().expect("an address");
    let admin = listeners.admin.local_addr().expect("an address");
    let running = tokio::spawn(server::run(config, listeners, std::future::pending(), Duration::ZERO));

    for (file, text) in documents() {
        for (method, path) in requests(&text) {
            let known = methods(public, admin, &path).await;
            let exists = if method == ANY { !known.is_empty() } else { known.contains(&method) };
            assert!(exists, "{file} names {method} {path}, where the gateway knows {known:?}");
        }
    }

    let page = requests(&document("docs/http.md"));
    for part in ["http/route.rs", "http/admin.rs"] {
        let code = source(part);
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for path in code.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/') && !text.contains(' ')) {
            let is_named = page.iter().any(|(_, named)| named.starts_with(path) || named.ends_with(path));
            assert!(is_named, "docs/http.md lacks a path with {path}, as {part} has it");
        }
    }
    for (_, path) in &page {
        for method in methods(public, admin, path).await {
            assert!(page.contains(&(method.clone(), path.clone())), "docs/http.md lacks {method} {path}");
        }
    }
    running.abort();
}

#[test]
fn every_test_that_is_named_exists() {
    let mut code = source("");
    for folder in ["gateway/tests", "publisher-cli/src", "tests/e2e", "tests/abuse", "tests/rolling"] {
        code.push_str(&source(&root().join(folder).display().to_string()));
    }
    let page = document("docs/testing.md");
    let is_name =
        |word: &&str| word.len() > 20 && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    let named: BTreeSet<_> = quoted(&page).filter(is_name).collect();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "docs/testing.md names the test {name}, which does not exist");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = documents();
    let anchors = |text: &str| -> BTreeSet<String> {
        let headings =
            text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        let slug = |heading: &str| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        };
        headings.map(slug).collect()
    };
    for (file, text) in &documents {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let folder = Path::new(file).parent().unwrap_or(Path::new(""));
            let to = match (path, path.strip_prefix("../")) {
                ("", _) => file.clone(),
                (_, Some(up)) => up.to_owned(),
                (path, None) => folder.join(path).display().to_string(),
            };
            assert!(root().join(&to).exists(), "{file} links to {target}, which does not exist");
            if let Some(anchor) = anchor {
                let there = documents.get(&to).is_some_and(|text| anchors(text).contains(anchor));
                assert!(there, "{file} links to {target}, where there is no such heading");
            }
        }
    }
}
