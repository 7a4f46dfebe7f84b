//! What the command line says about itself, and about a command line that makes no sense.

use crate::command::{command, ended, sluice};

#[tokio::test]
async fn every_command_explains_itself_with_examples() {
    for args in [
        &["--help"][..],
        &["publish", "--help"],
        &["tail", "--help"],
        &["stats", "--help"],
        &["help", "tail"],
        &["token", "mint", "--help"],
        &["help", "token", "explain"],
        &["bench", "--help"],
        &["bench", "run", "--help"],
        &["bench", "resume", "--help"],
        &["help", "bench", "floor"],
    ] {
        let ended = sluice(args).await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("Usage: sluice") && ended.stdout.contains("Examples:"), "{}", ended.stdout);
    }
    assert!(sluice(&["--version"]).await.stdout.starts_with("sluice "));
}

#[tokio::test]
async fn help_names_placeholders_as_they_are_written() {
    for command in ["run", "resume"] {
        let ended = sluice(&["bench", command, "--help"]).await;
        assert!(ended.stdout.contains("{channel} and {n}, the stream's number"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn help_shows_no_secret() {
    let mut help = command(&["publish", "--help"]);
    let (token, redis) = ("t0p-s3cret", "redis://:t0p-s3cret@localhost");
    help.env("SLUICE_TOKEN", token).env("SLUICE_REDIS_URL", redis).env("SLUICE_URL", "http://u:t0p-s3cret@localhost");
    let ended = ended(help.spawn().expect("starts")).await;
    assert!(ended.stdout.contains("SLUICE_TOKEN") && !ended.stdout.contains("s3cret"), "{}", ended.stdout);
}

#[tokio::test]
async fn nonsense_is_refused_with_2_before_anything_is_sent() {
    let both = ["publish", "news", "x", "--url", "http://localhost", "--redis", "redis://localhost"];
    for args in [
        &[][..],
        &["nonsense"],
        &["publish"],
        &["publish", "two words", "x"],
        &["publish", "$nonsense", "x"],
        &["publish", "news", "x", "--lines"],
        &["publish", "news", "x", "--file", "f"],
        &["publish", "news", "--lines", "--ndjson"],
        &["publish", "news", "x", "--event", "a\nb"],
        &["publish", "news", "x", "--retry-for", "soon"],
        &["publish", "news", "x", "--idempotency-key", ""],
        &["publish", "news", "x", "--url", "ftp://localhost"],
        &["publish", "news", "x", "--url", "localhost:8080"],
        &["publish", "news", "x", "--token", "a\nb"],
        &both,
        &["tail"],
        &["tail", "news", "--count", "0"],
        &["tail", "news", "--last-event-id", "x", "--cursor-file", "f"],
        &["completions", "nonsense"],
        &["bench"],
        &["bench", "run", "--url", "https://localhost/"],
        &["bench", "run", "--streams", "0"],
        &["bench", "run", "--rate", "10", "--outstanding", "1"],
        &["bench", "run", "--rate", "0"],
        &["bench", "run", "--size", "10"],
        &["bench", "run", "--data", "json", "--size", "40"],
        &["bench", "run", "--streams-per-connection", "10"],
        &["bench", "run", "--pid", "gateway"],
        &["bench", "run", "--header", "no colon"],
        &["bench", "run", "--publish-header", "Content-Length: 5"],
        &["bench", "run", "--channels", "10", "-n", "2"],
        &["bench", "resume", "--events", "0"],
    ] {
        let ended = sluice(args).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.stderr.contains("Usage:") || ended.stderr.contains("--help"), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn shells_are_helped_to_complete() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = sluice(&["completions", shell]).await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("idempotency-key"), "{shell}");
    }
}
