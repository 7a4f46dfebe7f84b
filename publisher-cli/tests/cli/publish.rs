//! One event: what is sent, what is printed, what is tried again.

use crate::{
    command::{sluice, sluice_with_input},
    server::{Answer, Server},
};
use serde_json::json;

fn taken() -> Answer {
    Answer::json(200, json!({ "channel": "news", "position": "1700-1" }))
}

#[tokio::test]
async fn the_argument_is_the_data_and_the_position_is_printed() {
    let server = Server::start(|_, _| taken()).await;
    let base = format!("{}/below/", server.url);
    let args = ["publish", "https://a/b?c#d", "Hello, wörld\n", "--event", "a b&c", "--url", &base, "--token", "t0p"];
    let ended = sluice(&args).await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "1700-1\n", ""));
    let asked = &server.asked()[0];
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.target, "/below/channels/https:%2F%2Fa%2Fb%3Fc%23d/events?event=a+b%26c");
    assert_eq!(asked.body, "Hello, wörld\n");
    assert_eq!(asked.header("authorization"), Some("Bearer t0p"));
    assert!(asked.header("idempotency-key").is_some_and(|key| (1..=128).contains(&key.len())));
}

#[tokio::test]
async fn settings_come_from_the_environment_too() {
    let server = Server::start(|_, _| taken()).await;
    let mut command = crate::command::command(&["publish", "news", "x", "--quiet", "--idempotency-key", "mine"]);
    command.env("SLUICE_URL", &server.url).env("SLUICE_TOKEN", "t0p").env("SLUICE_REDIS_URL", "");
    let span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    command.env("TRACEPARENT", span);
    let ended = crate::command::ended(command.spawn().expect("starts")).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    let asked = &server.asked()[0];
    assert_eq!(asked.header("authorization"), Some("Bearer t0p"));
    assert_eq!(asked.header("idempotency-key"), Some("mine"));
    assert_eq!(asked.header("traceparent"), Some(span));
}

#[tokio::test]
async fn stdin_and_files_lose_their_last_line_break_unless_told_otherwise() {
    let server = Server::start(|_, _| Answer::json(200, json!({ "channel": "news", "position": null }))).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "a\r\nb\r\n").expect("writes");
    let path = file.path().to_str().expect("UTF-8");
    for (args, body) in [
        (vec![], "one\ntwo\n"),
        (vec!["--exact"], "one\ntwo\n\n"),
        (vec!["--file", "-"], "one\ntwo\n"),
        (vec!["--file", path], "a\r\nb"),
    ] {
        let all = [&["publish", "news", "--url", &server.url], args.as_slice()].concat();
        let ended = sluice_with_input(&all, "one\ntwo\n\n").await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "-\n"), "no position is shown as -");
        assert_eq!(server.asked().last().expect("asked").body, body, "{args:?}");
    }
}

#[tokio::test]
async fn what_may_have_arrived_is_sent_again_under_the_same_key() {
    let server = Server::start(|number, _| match number {
        0 => Answer::problem(503, "Overloaded", "later").with_header("retry-after", "0"),
        1 => Answer::cut(),
        2 => Answer::problem(429, "Too many", "later"),
        _ => taken(),
    })
    .await;
    let ended = sluice(&["publish", "news", "x", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "1700-1\n"), "{}", ended.stderr);
    let asked = server.asked();
    let keys: Vec<_> = asked.iter().map(|asked| asked.header("idempotency-key").expect("a key")).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_gateway_that_asks_for_more_time_than_there_is_is_not_asked_again() {
    let server =
        Server::start(|_, _| Answer::problem(503, "Broker away", "Redis is away").with_header("retry-after", "60"))
            .await;
    let ended = sluice(&["publish", "news", "x", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("Broker away: Redis is away (HTTP 503)"), "{}", ended.stderr);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_and_not_repeated() {
    let server = Server::start(|_, _| Answer::problem(401, "No token", "send one")).await;
    let ended = sluice(&["publish", "news", "x", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("not published: No token: send one (HTTP 401)"), "{}", ended.stderr);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_waited_for_only_so_long() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let url = format!("http://{closed}");
    let started = std::time::Instant::now();
    let ended = sluice(&["publish", "news", "x", "--url", &url, "--retry-for", "600ms"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains(&url) && ended.stderr.contains("refused"), "{}", ended.stderr);
    assert!(started.elapsed() < std::time::Duration::from_secs(8));
}

#[tokio::test]
async fn a_redirection_that_would_lose_the_data_is_no_success() {
    let server = Server::start(|_, asked| match asked.method.as_str() {
        "POST" => Answer::json(302, "").with_header("location", "/elsewhere"),
        _ => taken(),
    })
    .await;
    let ended = sluice(&["publish", "news", "x", "--url", &server.url]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("/elsewhere"), "{}", ended.stderr);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn what_is_no_gateway_or_no_event_is_told() {
    let server = Server::start(|_, _| Answer::json(200, "<html>")).await;
    let ended = sluice(&["publish", "news", "x", "--url", &server.url]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("not as a Sluice gateway does"), "{}", ended.stderr);

    let ended = sluice_with_input(&["publish", "news", "--url", &server.url], b"ok\xff").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("UTF-8"), "{}", ended.stderr);
    let ended = sluice(&["publish", "news", "--file", "/nowhere", "--url", &server.url]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot read /nowhere"), "{}", ended.stderr);
    assert_eq!(server.asked().len(), 1);
}
