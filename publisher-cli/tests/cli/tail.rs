//! What `sluice tail` asks for and prints.

use crate::{
    command::{PATIENCE, ended, sluice, spawn},
    server::{Answer, Server},
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// What a gateway sends at first: a time to reconnect after and the place where the client stands.
pub(crate) const HELLO: &str = "retry: 20\nid: n.1-0\n\n";

pub(crate) fn event(id: u32, event_type: &str, data: &str) -> String {
    let envelope = serde_json::json!({ "channel": "news", "event": event_type, "data": data });
    let type_line = if event_type == "message" { String::new() } else { format!("event: {event_type}\n") };
    format!("{type_line}id: n.1-{id}\ndata: {envelope}\n\n")
}

#[tokio::test]
async fn events_are_lines_and_nothing_else_is() {
    let text = [
        HELLO,
        ": hb\n\n",
        &event(1, "message", "one"),
        "event: heartbeat\ndata: {}\n\n",
        &event(2, "add", "two\nlines"),
        "event: gap\ndata: {\"channel\":\"news\",\"reason\":\"trimmed\",\"from\":\"1-2\",\"to\":\"1-9\"}\n\n",
        &event(9, "message", "three"),
    ]
    .concat();
    let server = Server::start(move |_, _| Answer::events(&text).and_silence()).await;

    let args = ["tail", "news", "a/b&c", "--since", "last:5", "-n3", "--token", "t0p", "--url", &server.url];
    let plain = sluice(&args).await;
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    assert_eq!(plain.stdout, "[news] one\n[news] add:\n    two\n    lines\n[news] three\n");
    assert_eq!(plain.stderr, "sluice: gap in news after 1-2 before 1-9: events may be missing (trimmed)\n");
    let asked = &server.asked()[0];
    assert_eq!(asked.target, "/events?channel=news&channel=a%2Fb%26c&envelope=1&since=last%3A5");
    assert_eq!(asked.header("accept"), Some("text/event-stream"));
    assert_eq!(asked.header("authorization"), Some("Bearer t0p"));
    assert_eq!(asked.header("last-event-id"), None);

    let json = sluice(&["tail", "news", "--json", "--count", "3", "--url", &server.url]).await;
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = json.stdout.lines().collect();
    assert_eq!(lines[0], r#"{"channel":"news","event":"message","data":"one","id":"n.1-1"}"#);
    assert_eq!(lines[1], r#"{"channel":"news","event":"add","data":"two\nlines","id":"n.1-2"}"#);
    assert!(lines[2].starts_with(r#"{"channel":"news","event":"gap","data":"{\"channel\""#), "{}", lines[2]);
    assert_eq!(lines[3], r#"{"channel":"news","event":"message","data":"three","id":"n.1-9"}"#);
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn lines_come_while_the_stream_is_open_and_ctrl_c_ends_it() {
    let text = [HELLO, &event(1, "message", "now")].concat();
    let server = Server::start(move |_, _| Answer::events(&text).and_silence()).await;
    let mut child = spawn(&["tail", "news", "--url", &server.url]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("reads");
    assert_eq!(line.as_deref(), Some("[news] now"));
    let pid = child.id().expect("runs").to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("runs").success());
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(130), ""));
}

#[tokio::test]
async fn whoever_has_read_enough_is_not_complained_to() {
    let server = Server::start(|number, _| {
        let text: String = (1..100).map(|n| event(n, "message", "x")).collect();
        Answer::events(&format!("retry: 20\nid: {number}\n\n{text}"))
    })
    .await;
    let mut child = spawn(&["tail", "news", "--url", &server.url]);
    drop(child.stdout.take());
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_timeout_fails_only_where_a_count_was_wanted() {
    let text = event(1, "message", "one");
    let server = Server::start(move |_, _| Answer::events(&text).and_silence()).await;
    let ended = sluice(&["tail", "news", "--count", "2", "--timeout", "1s", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "[news] one\n"));
    assert!(ended.stderr.contains("1 events came"), "{}", ended.stderr);
    let ended = sluice(&["tail", "news", "--timeout", "1s", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "[news] one\n", ""));
}

#[tokio::test]
async fn the_cursor_file_says_what_was_printed_and_the_next_run_goes_on_there() {
    let text =
        [HELLO, &event(1, "message", "one"), &event(2, "message", "two"), &event(3, "message", "three")].concat();
    let server = Server::start(move |_, _| Answer::events(&text).and_silence()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cursor");
    let args = ["tail", "news", "-n2", "--cursor-file", path.to_str().expect("UTF-8"), "--url", &server.url];
    assert_eq!(sluice(&args).await.stdout, "[news] one\n[news] two\n");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "n.1-2\n", "not the third, which was not printed");
    sluice(&args).await;
    let asked = server.asked();
    assert_eq!(asked[0].header("last-event-id"), None);
    assert_eq!(asked[1].header("last-event-id"), Some("n.1-2"));
}
