//! `sluice tail` across connections: what is waited out, what is not, and where it goes on.

use crate::{
    command::sluice,
    server::{Answer, Server},
    tail::{HELLO, event},
};
use std::time::{Duration, Instant};

#[tokio::test]
async fn it_goes_on_after_the_last_event_however_the_stream_was_lost() {
    let server = Server::start(|number, _| match number {
        0 => Answer::events(&[HELLO, &event(1, "message", "one")].concat()),
        // An event without its empty line was not received, and neither was its id.
        1 => Answer::events(&[event(2, "message", "two"), "id: n.1-3\ndata: cut".into()].concat()).and_break(),
        2 => Answer::cut(),
        3 => Answer::problem(503, "Draining", "soon").with_header("retry-after", "1"),
        4 => Answer::problem(500, "Bug", "oops"),
        5 => Answer::events("id: n.1-7\n\n"),
        _ => Answer::events(&event(8, "message", "three")).and_silence(),
    })
    .await;
    let started = Instant::now();
    let ended = sluice(&["tail", "news", "-n3", "--last-event-id", "n.1-0", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "[news] one\n[news] two\n[news] three\n"));
    let asked = server.asked();
    let ids: Vec<_> = asked.iter().map(|asked| asked.header("last-event-id").expect("an id")).collect();
    assert_eq!(ids, ["n.1-0", "n.1-1", "n.1-2", "n.1-2", "n.1-2", "n.1-2", "n.1-7"]);
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not waited for");
    assert!(started.elapsed() < Duration::from_secs(15), "retry: 20 was not heeded");
    for said in ["Draining: soon (HTTP 503); trying again", "Bug: oops (HTTP 500); trying again", "connected again"] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_rolling_restart_is_nothing_to_speak_of() {
    let server = Server::start(|number, _| match number {
        0 => Answer::events(HELLO),
        _ => Answer::events(&event(1, "message", "one")).and_silence(),
    })
    .await;
    let ended = sluice(&["tail", "news", "-n1", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_silent_connection_is_given_up_for_another() {
    let server = Server::start(|number, _| match number {
        0 => Answer::events(HELLO).and_silence(),
        _ => Answer::events(&event(1, "message", "one")).and_silence(),
    })
    .await;
    let ended = sluice(&["tail", "news", "-n1", "--idle-timeout", "500ms", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "[news] one\n"), "{}", ended.stderr);
    assert_eq!(server.asked()[1].header("last-event-id"), Some("n.1-0"));
}

#[tokio::test]
async fn what_no_later_answer_would_differ_from_ends_it() {
    for (make, said) in [
        (Box::new(|| Answer::json(204, "")) as Box<dyn Fn() -> Answer + Send + Sync>, "HTTP 204"),
        (Box::new(|| Answer::problem(403, "Forbidden", "not your channel")), "Forbidden: not your channel (HTTP 403)"),
        (Box::new(|| Answer::problem(400, "Bad channel", "x")), "Bad channel: x (HTTP 400)"),
        (Box::new(|| Answer::json(200, "{}")), "no event stream"),
    ] {
        let server = Server::start(move |_, _| make()).await;
        let ended = sluice(&["tail", "news", "--url", &server.url]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_redirection_is_followed() {
    let server = Server::start(|_, asked| match asked.target.starts_with("/moved") {
        false => Answer::json(301, "").with_header("location", "/moved"),
        true => Answer::events(&event(1, "message", "one")).and_silence(),
    })
    .await;
    let ended = sluice(&["tail", "news", "-n1", "--url", &server.url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "[news] one\n"), "{}", ended.stderr);
}
