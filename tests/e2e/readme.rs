//! Every command that README.md shows works, and what README.md shows as output is what comes out.
//!
//! All blocks of the README that are marked `sh` are run, in order, in one directory, as a newcomer would: with gateways
//! and a Redis that go on in their own terminals, listeners in others, and the rest one after another. Each port is
//! another one that nobody uses, and `cargo run` and `target/release` are what is built already. Every block that is marked
//! `text` must have been printed, but for the numbers in it, by one of the commands. A command that this does not know is
//! a failure: teach it here.

use sluice_tests::{
    http::Http,
    ports,
    process::{Process, binary, directory, repository},
    wait,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

/// Where things listen that are not told where.
const PUBLIC: u16 = 8080;
const ADMIN: u16 = 8081;
const REDIS: u16 = 6379;

/// What a command is to this test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A gateway, which goes on.
    Gateway,
    /// A redis-server, which goes on.
    Redis,
    /// Shows events until it is stopped, and must have shown one.
    Listener,
    /// Ends by itself, with success.
    Task,
    /// Is not run, for this reason.
    Skipped(&'static str),
}

fn kind(command: &str) -> Option<Kind> {
    let mut words: Vec<_> = command.split_whitespace().collect();
    if words.starts_with(&["cargo", "run"]) {
        // `cargo run --release --bin NAME -- ARGS` is NAME with ARGS.
        let name = words.iter().position(|word| *word == "--bin")? + 1;
        words.drain(..name);
        words.retain(|word| *word != "--");
    }
    let program = words.first()?;
    words[0] = program.strip_prefix("target/release/").unwrap_or(program);
    let has = |flags: &[&str]| words.iter().any(|word| flags.contains(word));
    Some(match words[..] {
        ["sluice-gateway", ..] if has(&["--print-config", "--check-config", "--help", "--version"]) => Kind::Task,
        ["sluice-gateway", ..] => Kind::Gateway,
        ["redis-server", "--port", _] => Kind::Redis,
        ["curl", ..] if has(&["-N", "-sN", "-Ns", "--no-buffer"]) => Kind::Listener,
        ["sluice", "tail", ..] => Kind::Listener,
        ["curl" | "sluice" | "redis-cli" | "echo" | "printf" | "seq" | "cat", _, ..] => Kind::Task,
        ["git", "clone", ..] | ["cd", _] => Kind::Skipped("the repository is here"),
        ["cargo", "build" | "install", ..] => Kind::Skipped("tests/run has built it, unoptimised"),
        ["tests/run"] | [".ci/run"] | ["cargo", "test", ..] => Kind::Skipped("it is what runs this test"),
        _ => return None,
    })
}

/// The lines of each block with this mark.
fn blocks(readme: &str, mark: &str) -> Vec<String> {
    let (mut blocks, mut inside, mut wanted) = (Vec::new(), false, false);
    for line in readme.lines() {
        if let Some(found) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            wanted = inside && found.trim() == mark;
            if wanted {
                blocks.push(String::new());
            }
        } else if let (true, Some(block)) = (wanted, blocks.last_mut()) {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// The commands of all blocks marked `sh`: lines, joined where one ends in a backslash, without comments.
fn commands(readme: &str) -> Vec<String> {
    let (mut commands, mut unfinished) = (Vec::new(), String::new());
    for line in blocks(readme, "sh").concat().lines() {
        match line.strip_suffix('\\') {
            Some(begun) => unfinished.push_str(begun),
            None => {
                let whole = std::mem::take(&mut unfinished) + line;
                commands.push(whole.split(" #").next().unwrap_or_default().trim().to_owned());
            }
        }
    }
    commands.retain(|command| !command.is_empty() && !command.starts_with('#'));
    commands
}

/// A free port for each that the README names, or that its programs take when none is named.
#[derive(Debug, Default)]
struct Ports(BTreeMap<u16, SocketAddr>);

impl Ports {
    fn instead_of(&mut self, port: u16) -> SocketAddr {
        *self.0.entry(port).or_insert_with(ports::free)
    }

    /// The command with every port replaced.
    fn replace_in(&mut self, command: &str) -> String {
        let mut text = command.to_owned();
        for before in ["127.0.0.1:", "localhost:", "--port ", "-p "] {
            let mut parts = text.split(before);
            let mut replaced = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                let port = part[..digits].parse().ok().map(|port| self.instead_of(port).port().to_string());
                replaced.extend([before, port.as_deref().unwrap_or(&part[..digits]), &part[digits..]]);
            }
            text = replaced;
        }
        text
    }

    /// What follows a word of the command, as an address, or that which is meant without it.
    fn address(&mut self, command: &str, flag: &str, default: u16) -> SocketAddr {
        let mut words = command.split_whitespace().skip_while(|word| *word != flag);
        let named = words.nth(1).map(|word| word.parse().unwrap_or_else(|_| panic!("an address in {command}")));
        named.unwrap_or_else(|| self.instead_of(default))
    }
}

/// Programs under the names by which the README calls them, in a directory that is like a clone after a build.
fn programs(directory: &Path, redis: SocketAddr) -> String {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    };
    let built = binary("sluice").parent().expect("a directory").to_owned();
    std::fs::create_dir(directory.join("target")).expect("a directory");
    symlink(&built, directory.join("target/release")).expect("a link");
    // `cargo run [--release] --bin NAME [-- ARGS]`, with what is built.
    let cargo = "#!/bin/bash\nwhile [ \"$1\" != --bin ]; do shift; done\nname=$2; shift 2\n\
                 [ \"${1:-}\" = -- ] && shift\nexec \"target/release/$name\" \"$@\"\n";
    write("cargo", cargo);
    // It can be told its port only on the command line; with -e an answer that is an error is a failure.
    write("redis-cli", &format!("#!/bin/bash\nPATH=${{PATH#*:}} exec redis-cli -e -p {} \"$@\"\n", redis.port()));
    format!("{}:{}:/usr/local/bin:/usr/bin:/bin", directory.display(), built.display())
}

/// What one command printed, standard error included.
struct Printed {
    kind: Kind,
    command: String,
    process: Process,
}

#[tokio::test]
async fn every_command_of_the_readme_works_and_prints_what_it_says() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md is there");
    let commands = commands(&readme);
    assert!(!commands.is_empty(), "README.md has blocks marked sh");
    let (directory, mut ports) = (directory(), Ports::default());
    let path = programs(directory.path(), ports.instead_of(REDIS));
    let (mut started, mut gateways) = (Vec::<Printed>::new(), BTreeMap::new());
    for (index, command) in commands.into_iter().enumerate() {
        let kind = kind(&command).unwrap_or_else(|| panic!("an unknown command in README.md: {command}"));
        if let Kind::Skipped(_) = kind {
            continue;
        }
        let text = ports.replace_in(&command);
        // What goes on is the shell itself, so that its id is the one that ends it.
        let exec = if kind == Kind::Task { "" } else { "exec " };
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &format!("exec 2>&1; {exec}{text}")]).current_dir(directory.path());
        shell.env_clear().env("PATH", &path);
        shell.env("SLUICE_LISTEN", ports.instead_of(PUBLIC).to_string());
        shell.env("SLUICE_ADMIN_LISTEN", ports.instead_of(ADMIN).to_string());
        shell.env("SLUICE_URL", format!("http://{}", ports.instead_of(PUBLIC)));
        let heard = heard_gateway(&text, &gateways).unwrap_or_else(|| ports.instead_of(ADMIN));
        let before = if kind == Kind::Listener { sent_bytes(heard).await } else { 0.0 };
        let mut process = Process::start(&format!("readme-{index}"), &mut shell, directory.path());
        match kind {
            Kind::Gateway => {
                let admin = ports.address(&text, "--admin-listen", ADMIN);
                gateways.insert(ports.address(&text, "--listen", PUBLIC), admin);
                let http = Http::new(admin);
                let ready =
                    async || http.try_send("GET", "/readyz", &[], "").await.ok().filter(|answer| answer.status == 200);
                wait::until(&command, ready).await;
            }
            Kind::Redis => {
                let address = ports.instead_of(REDIS);
                wait::until(&command, async || tokio::net::TcpStream::connect(address).await.ok()).await;
            }
            Kind::Listener => {
                // The first bytes come when nothing that is published can be missed any more.
                let listens = async || (sent_bytes(heard).await > before).then_some(());
                wait::until(&command, listens).await;
            }
            Kind::Task => {
                let status = process.end(wait::PATIENCE).await;
                assert!(status.success(), "{command}: {status}: {}", process.stdout());
            }
            Kind::Skipped(_) => {}
        }
        started.push(Printed { kind, command, process });
    }
    for listener in started.iter().filter(|printed| printed.kind == Kind::Listener) {
        let shown = async || {
            let text = listener.process.stdout();
            let is_curl = listener.command.starts_with("curl");
            let is_event = if is_curl { text.contains("data: ") } else { !text.is_empty() };
            is_event.then_some(())
        };
        wait::until(&format!("an event is shown by: {}", listener.command), shown).await;
    }
    for block in blocks(&readme, "text") {
        let expected = without_numbers(block.trim_end());
        let prints = |one: &Printed| without_numbers(&one.process.stdout()).contains(&expected);
        let is_printed = async || started.iter().any(prints).then_some(());
        wait::until(&format!("this, as README.md has it, is printed:\n{block}"), is_printed).await;
    }
}

/// The admin port of the gateway that a command names.
fn heard_gateway(command: &str, gateways: &BTreeMap<SocketAddr, SocketAddr>) -> Option<SocketAddr> {
    gateways.iter().find(|(public, _)| command.contains(&public.to_string())).map(|(_, admin)| *admin)
}

/// Bytes that a gateway has sent on streams.
async fn sent_bytes(admin: SocketAddr) -> f64 {
    let text = Http::new(admin).get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix("sse_bytes_sent_total ")?.parse().ok());
    value.unwrap_or_else(|| panic!("no sse_bytes_sent_total in {text}"))
}

/// The text with `#` for what differs from run to run: times, and cursors made of them. The number of an event stays.
fn without_numbers(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let run = &rest[..end];
        // `retry: 1738`, `1795254426408575-1`, `1f9l9hg5.hod4hwx37f-0`
        let is_time = (run.len() > 3 && run.bytes().all(|byte| byte.is_ascii_digit()))
            || (run.len() == 10 && plain.ends_with('.') && rest[end..].starts_with('-'));
        plain.push_str(if is_time { "#" } else { run });
        rest = &rest[end..];
    }
    plain
}

#[test]
fn commands_are_found_in_marked_blocks_alone() {
    let text = "```sh\na 1 \\\n  2   # why\n\n# note\nb\n```\n```console\nc\n```\n```\nd\n```\n  ```sh\n  e\n  ```\n";
    assert_eq!(commands(text), ["a 1   2", "b", "e"]);
    assert_eq!(blocks(text, "console"), ["c\n"]);
}

#[test]
fn commands_are_known_by_what_they_do() {
    for (command, expected) in [
        ("cargo run --release --bin sluice-gateway", Some(Kind::Gateway)),
        ("cargo run --release --bin sluice-gateway -- --print-config", Some(Kind::Task)),
        ("target/release/sluice-gateway --redis redis://127.0.0.1:6379", Some(Kind::Gateway)),
        ("redis-server --port 6379", Some(Kind::Redis)),
        ("redis-server --port 6379 --daemonize yes", None),
        ("curl -N 'http://127.0.0.1:8080/events?channel=news'", Some(Kind::Listener)),
        ("curl -d hi http://127.0.0.1:8080/channels/news/events", Some(Kind::Task)),
        ("cargo run --release --bin sluice -- tail news", Some(Kind::Listener)),
        ("target/release/sluice tail news", Some(Kind::Listener)),
        ("sluice publish news hi", Some(Kind::Task)),
        ("redis-cli PUBLISH sluice:news hi", Some(Kind::Task)),
        ("tests/run", Some(Kind::Skipped("it is what runs this test"))),
        ("cargo build --release", Some(Kind::Skipped("tests/run has built it, unoptimised"))),
        ("rm -rf /", None),
    ] {
        assert_eq!(kind(command), expected, "{command}");
    }
}

#[test]
fn every_port_becomes_one_of_our_own() {
    let mut ports = Ports::default();
    let text =
        ports.replace_in("g --redis redis://127.0.0.1:6379 --listen 127.0.0.1:8180 http://localhost:8180/ --port 6379");
    let (redis, public) = (ports.instead_of(6379), ports.instead_of(8180));
    let (at, port) = (public.port(), redis.port());
    assert_eq!(text, format!("g --redis redis://{redis} --listen {public} http://localhost:{at}/ --port {port}"));
    assert_eq!((ports.address(&text, "--listen", 1), ports.0.len()), (public, 2));
}

#[test]
fn only_what_differs_from_run_to_run_is_taken_out() {
    let text = "retry: 1738\nid: 1f9l9hg5.hod4hwx37f-0\ndata: hello 7\n{\"position\":\"1795254426408575-1\"}";
    let plain = "retry: #\nid: 1f9l9hg5.#-0\ndata: hello 7\n{\"position\":\"#-1\"}";
    assert_eq!(without_numbers(text), plain);
}
