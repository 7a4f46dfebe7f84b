//! The `sluice` command, run as a shell would, with nothing of this environment's settings.

use crate::{process::binary, wait};
use std::process::Stdio;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Starts it with pipes; it is killed when dropped.
///
/// # Panics
/// When the binary is missing.
#[must_use]
pub fn spawn(args: &[&str]) -> Child {
    let mut command = Command::new(binary("sluice"));
    command.args(args).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

/// Runs it to its end.
pub async fn sluice(args: &[&str]) -> Ended {
    sluice_with_input(args, "").await
}

/// Runs it to its end with `input` on its standard input.
///
/// # Panics
/// When it does not end.
pub async fn sluice_with_input(args: &[&str], input: &str) -> Ended {
    let mut child = spawn(args);
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.as_bytes().to_vec();
    // It may end without reading all of it.
    let feeding = tokio::spawn(async move { stdin.write_all(&input).await });
    let output = wait::soon("the end of sluice", child.wait_with_output()).await.expect("our own child");
    feeding.abort();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs it to its end, which must be a success; answers what it printed.
///
/// # Panics
/// When it fails.
pub async fn sluice_ok(args: &[&str]) -> String {
    let ended = sluice(args).await;
    assert_eq!(ended.code, Some(0), "sluice {args:?}: {}", ended.stderr);
    ended.stdout
}
