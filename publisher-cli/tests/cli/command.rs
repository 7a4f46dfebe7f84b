//! Runs the binary as a shell would, with nothing of this environment's settings.

use std::{process::Stdio, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

/// Far longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn spawn(args: &[&str]) -> Child {
    command(args).spawn().expect("the binary starts")
}

/// Waits for its end, with its stdin closed.
pub(crate) async fn ended(mut child: Child) -> Ended {
    drop(child.stdin.take());
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("ends").expect("is awaited");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) async fn sluice(args: &[&str]) -> Ended {
    ended(spawn(args)).await
}

pub(crate) async fn sluice_with_input(args: &[&str], input: impl AsRef<[u8]>) -> Ended {
    let mut child = spawn(args);
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.as_ref().to_vec();
    // It may end without reading all.
    let feeding = tokio::spawn(async move { stdin.write_all(&input).await });
    let ended = ended(child).await;
    feeding.abort();
    ended
}
