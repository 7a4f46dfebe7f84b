//! Every command that README.md shows works.
//!
//! All blocks of the README that are marked `sh` are run, in order, in one directory, as a newcomer would: with a
//! gateway that goes on in one terminal, listeners in others, and the rest one after another. Only the ports are others,
//! and `cargo run` runs what is built already. A command that this does not know is a failure: teach it here.

use sluice_tests::{
    http::Http,
    ports,
    process::{Process, binary, directory, repository},
    wait,
};
use std::{net::SocketAddr, path::Path, process::Command};

/// What a command is to this test.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A gateway, which goes on.
    Gateway,
    /// Shows events until it is stopped, and must have shown one.
    Listener,
    /// Ends by itself, with success.
    Task,
    /// What this run has done already, or is.
    Done,
}

fn kind(command: &str) -> Option<Kind> {
    let mut words: Vec<_> = command.split_whitespace().collect();
    if words.starts_with(&["cargo", "run"]) {
        // `cargo run --release --bin NAME -- ARGS` is NAME with ARGS.
        let name = words.iter().position(|word| *word == "--bin")? + 1;
        words.drain(..name);
        words.retain(|word| *word != "--");
    }
    let has = |flags: &[&str]| words.iter().any(|word| flags.contains(word));
    Some(match words[..] {
        ["sluice-gateway", ..] if has(&["--print-config", "--check-config", "--help", "--version"]) => Kind::Task,
        ["sluice-gateway", ..] => Kind::Gateway,
        ["curl", ..] if has(&["-N", "-sN", "-Ns", "--no-buffer"]) => Kind::Listener,
        ["sluice", "tail", ..] => Kind::Listener,
        ["curl" | "sluice" | "echo" | "printf" | "seq" | "cat", _, ..] => Kind::Task,
        ["git", "clone", ..] | ["cd", _] | ["tests/run"] | [".ci/run"] => Kind::Done,
        ["cargo", "build" | "test" | "install", ..] => Kind::Done,
        _ => return None,
    })
}

/// The commands of all blocks marked `sh`: lines, joined where one ends in a backslash, without comments.
fn commands(readme: &str) -> Vec<String> {
    let (mut commands, mut runnable, mut inside) = (Vec::new(), false, false);
    let mut unfinished = String::new();
    for line in readme.lines() {
        if let Some(mark) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            runnable = inside && mark.trim() == "sh";
        } else if runnable {
            match line.strip_suffix('\\') {
                Some(begun) => unfinished.push_str(begun),
                None => {
                    let whole = std::mem::take(&mut unfinished) + line;
                    commands.push(whole.split(" #").next().unwrap_or_default().trim().to_owned());
                }
            }
        }
    }
    commands.retain(|command| !command.is_empty() && !command.starts_with('#'));
    commands
}

/// Programs under the names by which the README calls them.
fn programs(directory: &Path) -> String {
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    };
    let target = binary("sluice").parent().expect("a directory").display().to_string();
    // `cargo run [--release] --bin NAME [-- ARGS]`, with what is built.
    let cargo = "#!/bin/bash\nwhile [ \"$1\" != --bin ]; do shift; done\nname=$2; shift 2\n\
                 [ \"${1:-}\" = -- ] && shift\nexec \"$TARGET/$name\" \"$@\"\n";
    write("cargo", &cargo.replace("$TARGET", &target));
    format!("{}:{target}:/usr/local/bin:/usr/bin:/bin", directory.display())
}

#[tokio::test]
async fn every_command_of_the_readme_works() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md is there");
    let commands = commands(&readme);
    assert!(!commands.is_empty(), "README.md has blocks marked sh");
    let directory = directory();
    let path = programs(directory.path());
    let (public, admin) = (ports::free(), ports::free());
    let mut running: Vec<(Kind, String, Process)> = Vec::new();
    for (index, command) in commands.iter().enumerate() {
        let kind = kind(command).unwrap_or_else(|| panic!("an unknown command in README.md: {command}"));
        if kind == Kind::Done {
            continue;
        }
        let text = at_our_ports(command, public, admin);
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &format!("exec 2>&1; {text}")]).env_clear().env("PATH", &path);
        shell.env("SLUICE_LISTEN", public.to_string()).env("SLUICE_ADMIN_LISTEN", admin.to_string());
        shell.env("SLUICE_URL", format!("http://{public}")).current_dir(repository());
        let before = sent_bytes(admin).await;
        let mut process = Process::start(&format!("readme-{index}"), &mut shell, directory.path());
        match kind {
            Kind::Gateway => {
                let admin = Http::new(admin);
                let ready =
                    async || admin.try_send("GET", "/readyz", &[], "").await.ok().filter(|answer| answer.status == 200);
                wait::until(command, ready).await;
            }
            Kind::Listener => {
                // The first bytes come when nothing that is published can be missed any more.
                let listens = async || (sent_bytes(admin).await > before).then_some(());
                wait::until(command, listens).await;
            }
            Kind::Task => {
                let status = process.end(wait::PATIENCE).await;
                assert!(status.success(), "{command}: {status}: {}", process.stdout());
                continue;
            }
            Kind::Done => {}
        }
        running.push((kind, command.clone(), process));
    }
    for (_, command, process) in running.iter().filter(|(kind, _, _)| *kind == Kind::Listener) {
        let shown = async || {
            let text = process.stdout();
            let is_event = if command.starts_with("curl") { text.contains("data: ") } else { !text.is_empty() };
            is_event.then_some(())
        };
        wait::until(&format!("an event is shown by: {command}"), shown).await;
    }
}

/// Bytes that the gateway has sent on streams, if it runs.
async fn sent_bytes(admin: SocketAddr) -> f64 {
    let answer = Http::new(admin).try_send("GET", "/metrics", &[], "").await;
    let text = answer.map(|answer| answer.text()).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("sse_bytes_sent_total ")?.parse().ok());
    value.unwrap_or(0.0)
}

fn at_our_ports(command: &str, public: SocketAddr, admin: SocketAddr) -> String {
    let with = |text: &str, port: u16, by: SocketAddr| {
        text.replace(&format!("localhost:{port}"), &by.to_string())
            .replace(&format!("127.0.0.1:{port}"), &by.to_string())
    };
    with(&with(command, 8080, public), 8081, admin)
}

#[test]
fn commands_are_found_in_marked_blocks_alone() {
    let text = "```sh\na 1 \\\n  2   # why\n\n# note\nb\n```\n```console\nc\n```\n```\nd\n```\n  ```sh\n  e\n  ```\n";
    assert_eq!(commands(text), ["a 1   2", "b", "e"]);
}

#[test]
fn commands_are_known_by_what_they_do() {
    for (command, expected) in [
        ("cargo run --release --bin sluice-gateway", Some(Kind::Gateway)),
        ("cargo run --release --bin sluice-gateway -- --print-config", Some(Kind::Task)),
        ("curl -N 'http://127.0.0.1:8080/events?channel=news'", Some(Kind::Listener)),
        ("curl -d hi http://127.0.0.1:8080/channels/news/events", Some(Kind::Task)),
        ("cargo run --release --bin sluice -- tail news", Some(Kind::Listener)),
        ("sluice publish news hi", Some(Kind::Task)),
        ("tests/run", Some(Kind::Done)),
        ("rm -rf /", None),
    ] {
        assert_eq!(kind(command), expected, "{command}");
    }
}
