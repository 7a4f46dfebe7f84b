//! `sluice bench`: what servers do wrong is found, what they do right is not complained of.

use crate::{
    command::{Ended, PATIENCE, ended, sluice, spawn},
    liar::{self, Lie},
};
use serde_json::Value;
use sluice_gateway::{
    config::{Config, Sources},
    server::{self, Listeners},
};
use std::{collections::BTreeSet, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// Runs it with `--json` beside these arguments.
async fn bench(args: &[&str]) -> (Ended, Value) {
    let ended = sluice(&[&["bench"], args, &["--json"]].concat()).await;
    let found = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}{}", ended.stdout, ended.stderr));
    (ended, found)
}

/// Twenty events, one after the other, to a server that lies once.
async fn lied_to(lie: Lie, streams: &str) -> (Ended, Value) {
    lied_to_with(lie, streams, &[]).await
}

async fn lied_to_with(lie: Lie, streams: &str, more: &[&str]) -> (Ended, Value) {
    let url = liar::start(lie).await;
    let load = ["--rate", "100", "--events", "20", "--warmup", "0s", "--settle", "500ms"];
    bench(&[&["run", "--url", &url, "-n", streams], &load[..], more].concat()).await
}

/// Lost, doubled, disordered.
fn faults(found: &Value) -> [u64; 3] {
    ["lost", "doubled", "disordered"].map(|name| found["checked"][name].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_server_without_fault_is_not_complained_of() {
    let (ended, found) = lied_to(Lie::None, "3").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!((faults(&found), found["checked"]["deliveries"].as_u64()), ([0; 3], Some(60)));
    assert_eq!(found["traffic"]["events"], 20);
    assert_eq!(found["traffic"]["publishes_failed"], 0);
    assert!(found["traffic"]["latency_us"]["p50"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_lost_delivery_is_found() {
    let (ended, found) = lied_to(Lie::Drops, "3").await;
    assert_eq!((ended.code, faults(&found)), (Some(1), [1, 0, 0]));
    assert!(ended.stderr.contains("1 deliveries lost"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_doubled_delivery_is_found() {
    let (ended, found) = lied_to(Lie::Doubles, "3").await;
    assert_eq!((ended.code, faults(&found)), (Some(1), [0, 1, 0]));
}

#[tokio::test]
async fn a_stream_with_another_order_is_found() {
    let (ended, found) = lied_to(Lie::Swaps, "3").await;
    assert_eq!((ended.code, faults(&found)), (Some(1), [0, 0, 1]));
}

#[tokio::test]
async fn an_order_that_is_wrong_for_all_is_found() {
    for streams in ["1", "3"] {
        // On several connections two events that are due at once, after a moment in which nothing ran, have no order.
        let (ended, found) = lied_to_with(Lie::SwapsForAll, streams, &["--publishers", "1"]).await;
        assert_eq!((ended.code, faults(&found)), (Some(1), [0, 0, 1]), "{streams}");
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_has_lost_what_follows() {
    let (ended, found) = lied_to(Lie::Cuts, "3").await;
    assert_eq!((ended.code, &found["streams"]["cut"]), (Some(1), &1.into()));
    // It misses the event that was to come when it was cut, and those published before that was noticed.
    assert!(faults(&found)[0] >= 1 && faults(&found)[1..] == [0, 0], "{found}");
    assert!(ended.stderr.contains("1 cut"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_event_that_is_refused_is_told_and_not_missed() {
    let (ended, found) = lied_to(Lie::Refuses, "3").await;
    assert_eq!((ended.code, faults(&found)), (Some(1), [0; 3]));
    let traffic = &found["traffic"];
    assert_eq!((&traffic["publishes_failed"], &traffic["first_failure"]), (&1.into(), &"HTTP 500".into()));
}

#[tokio::test]
async fn an_event_whose_publishing_is_never_answered_is_told() {
    let (ended, found) = lied_to(Lie::NeverAnswers, "3").await;
    assert_eq!((ended.code, faults(&found), &found["checked"]["deliveries"]), (Some(1), [0; 3], &57.into()));
    let traffic = &found["traffic"];
    assert_eq!((&traffic["publishes_unanswered"], &traffic["unsent"]), (&1.into(), &0.into()));
    assert!(ended.stderr.contains("never answered"), "{}", ended.stderr);
    // Where the next events wait for it, they are not sent at all.
    let url = liar::start(Lie::NeverAnswers).await;
    let window = ["--outstanding", "1", "--events", "20", "--warmup", "0s", "--settle", "200ms"];
    let (ended, found) = bench(&[&["run", "--url", &url, "-n", "3"], &window[..]].concat()).await;
    let traffic = &found["traffic"];
    assert_eq!((ended.code, &traffic["events"], &traffic["unsent"]), (Some(1), &4.into(), &16.into()));
    assert_eq!(traffic["publishes_unanswered"], 1);
}

#[tokio::test]
async fn a_rate_that_the_server_does_not_take_is_told_and_none_of_its_events_is_spared() {
    // Two hundred events are due in a second, and go out one after the other, each of which takes 20 ms.
    let load = ["--rate", "200", "--duration", "1s", "--publishers", "1", "--warmup", "0s"];
    for (settle, are_all_sent) in [("20s", true), ("300ms", false)] {
        let url = liar::start(Lie::IsSlow).await;
        let (ended, found) = bench(&[&["run", "--url", &url, "-n", "2", "--settle", settle], &load[..]].concat()).await;
        let traffic = &found["traffic"];
        assert_eq!((ended.code, faults(&found), &traffic["rate_held"]), (Some(1), [0; 3], &false.into()), "{found}");
        let count = |name: &str| traffic[name].as_u64().expect("a number");
        assert_eq!((count("events") + count("unsent"), count("unsent") == 0), (200, are_all_sent), "{found}");
        assert!(ended.stderr.contains("the rate was not held"), "{}", ended.stderr);
        // They are late by as much as they came after their time.
        let behind = traffic["behind_seconds"].as_f64().expect("a number");
        assert!(behind > if are_all_sent { 2.5 } else { 0.5 }, "{found}");
        assert!(!are_all_sent || traffic["latency_us"]["max"].as_u64() > Some(2_500_000), "{found}");
    }
    let url = liar::start(Lie::IsSlow).await;
    let load = ["--rate", "20", "--duration", "1s", "--publishers", "1", "--warmup", "100ms"];
    let (ended, found) = bench(&[&["run", "--url", &url, "-n", "2"], &load[..]].concat()).await;
    assert_eq!((ended.code, &found["traffic"]["rate_held"]), (Some(0), &true.into()), "{}", ended.stderr);
    assert_eq!((&found["traffic"]["events"], &found["traffic"]["unsent"]), (&20.into(), &0.into()));
}

#[tokio::test]
async fn a_window_that_a_lost_event_fills_does_not_wait_for_ever() {
    let url = liar::start(Lie::Drops).await;
    let window = ["--outstanding", "1", "--duration", "60s", "--warmup", "0s", "--settle", "200ms"];
    let (ended, found) = bench(&[&["run", "--url", &url, "-n", "2"], &window[..]].concat()).await;
    assert_eq!((ended.code, faults(&found)), (Some(1), [1, 0, 0]));
}

#[tokio::test]
async fn what_cannot_be_measured_is_said() {
    let url = liar::start(Lie::None).await;
    for (args, reason) in [
        (&["--url", "http://127.0.0.1:1/"][..], "no stream could be opened"),
        (&["--url", &url, "--publish-url", "http://127.0.0.1:1/", "--warmup", "9s"], "nothing can be published"),
        (&["--url", &url, "--pid", "nobody=4194304"], "no process"),
    ] {
        let ended = sluice(&[&["bench", "run", "-n", "2"], args].concat()).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(ended.stderr.contains(reason), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn the_floor_delivers_all_to_all_and_ends_when_it_is_told() {
    let mut floor = spawn(&["bench", "floor", "--listen", "127.0.0.1:0"]);
    let mut lines = BufReader::new(floor.stdout.take().expect("piped")).lines();
    let url = lines.next_line().await.expect("reads").expect("an address");
    let pid = floor.id().expect("runs");
    let measured = format!("floor={pid}");
    let load =
        ["-n", "20", "--outstanding", "3", "--events", "50", "--warmup", "0s", "--data", "json", "--size", "300"];
    let (ended, found) = bench(&[&["run", "--url", &url, "--pid", &measured], &load[..]].concat()).await;
    assert_eq!((ended.code, faults(&found)), (Some(0), [0; 3]), "{}", ended.stderr);
    assert_eq!(found["checked"]["deliveries"], 1000);
    let process = &found["processes"][0];
    assert!(process["name"] == "floor" && process["before"]["rss_kib"].as_u64() > Some(0), "{process}");

    let (ended, found) = bench(&["run", "--url", &url, "-n", "4", "--idle", "--duration", "10ms"]).await;
    assert_eq!((ended.code, &found["traffic"], &found["streams"]["open"]), (Some(0), &Value::Null, &4.into()));
    // It knows no channels.
    let (ended, found) = bench(&["run", "--url", &url, "-n", "2", "--channels", "2", "--duration", "50ms"]).await;
    assert!(ended.code == Some(1) && found["checked"]["stray"].as_u64() > Some(0), "{found}");
    let ended = sluice(&["bench", "run", "--url", &url, "-n", "2", "--events", "5", "--warmup", "0s"]).await;
    assert!(ended.stdout.contains("10 deliveries: 0 lost, 0 doubled, 0 disordered"), "{}", ended.stdout);

    let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is there");
    let status = tokio::time::timeout(PATIENCE, floor.wait()).await.expect("ends").expect("is awaited");
    assert!(status.success());
}

/// Follows a server until something has been published.
async fn first_event(url: &str) {
    let address = url.strip_prefix("http://").expect("a URL");
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("asks");
    let mut lines = BufReader::new(socket).lines();
    let event = async { while !lines.next_line().await.expect("reads").expect("goes on").starts_with("data:") {} };
    tokio::time::timeout(PATIENCE, event).await.expect("an event");
}

#[tokio::test]
async fn a_process_that_ends_while_it_is_measured_is_told() {
    let url = liar::start(Lie::None).await;
    let mut measured = Command::new("sleep").arg("60").kill_on_drop(true).spawn().expect("starts");
    let pid = format!("sleeper={}", measured.id().expect("runs"));
    let bench =
        spawn(&["bench", "run", "--url", &url, "-n", "2", "--pid", &pid, "--json", "--rate", "10", "--events", "5"]);
    // It has looked at the process when the first event comes.
    first_event(&url).await;
    measured.start_kill().expect("runs");
    let ended = ended(bench).await;
    let found: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let process = &found["processes"][0];
    assert_eq!((ended.code, &process["cpu_us_per_delivery"]), (Some(1), &Value::Null), "{found}");
    assert_eq!((&process["after"], &process["after_kib_per_connection"]), (&Value::Null, &Value::Null), "{found}");
    assert!(process["before"]["rss_kib"].as_u64() > Some(0), "{found}");
    assert!(ended.stderr.contains("(sleeper) has ended"), "{}", ended.stderr);
}

/// A gateway in this process; its streams' URL.
async fn gateway() -> String {
    let flag = |key: &str| (key.to_owned(), "127.0.0.1:0".to_owned());
    let sources = Sources { flags: vec![flag("listen"), flag("admin_listen")], ..Sources::default() };
    let config = Config::load(&sources).expect("a configuration").config;
    let listeners = Listeners::bind(&config).expect("free ports");
    let address = listeners.public.local_addr().expect("an address");
    tokio::spawn(server::run(config, listeners, std::future::pending(), Duration::ZERO));
    format!("http://{address}/events?channel={{channel}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_measured_over_both_protocols_beside_streams_that_never_read() {
    let url = gateway().await;
    for protocol in [&[][..], &["--http2", "--streams-per-connection", "7"], &["--accept-encoding", "gzip"]] {
        let load = ["-n", "20", "--stall", "2", "--channels", "3", "--rate", "200", "--events", "40", "--warmup", "0s"];
        let (ended, found) = bench(&[&["run", "--url", &url], &load[..], protocol].concat()).await;
        assert_eq!((ended.code, faults(&found)), (Some(0), [0; 3]), "{protocol:?}: {}", ended.stderr);
        assert_eq!((&found["streams"]["open"], &found["streams"]["stalled"]), (&20.into(), &2.into()));
        assert!(found["checked"]["deliveries"].as_u64() > Some(40 * 6), "{found}");
    }
}

#[tokio::test]
async fn streams_come_from_the_given_addresses_over_both_protocols() {
    for protocol in [&[][..], &["--http2", "--streams-per-connection", "1"]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let load = ["bench", "run", "--url", &url, "-n", "2", "--source", "127.0.0.7", "--source", "127.0.0.8"];
        let bench = spawn(&[&load[..], protocol].concat());
        let (mut peers, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time");
            let (socket, peer) = accepted.expect("accepts");
            peers.push(peer.ip().to_string());
            sockets.push(socket);
        }
        peers.sort();
        assert_eq!(peers, ["127.0.0.7", "127.0.0.8"], "{protocol:?}");
        drop((sockets, listener));
        let ended = ended(bench).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("no stream could be opened"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_resume_at_once_get_exactly_what_they_missed() {
    let url = gateway().await;
    let load = ["-n", "20", "--events", "30", "--watch", "3", "--quiet", "200ms"];
    for how in [&[][..], &["--connected"]] {
        let (ended, found) = bench(&[&["resume", "--url", &url], &load[..], how].concat()).await;
        assert_eq!((ended.code, faults(&found)), (Some(0), [0; 3]), "{}", ended.stderr);
        for stage in ["resume", "live"] {
            assert_eq!((&found[stage]["deliveries"], &found[stage]["is_complete"]), (&600.into(), &true.into()));
        }
        assert!(found["resume_to_live"].as_f64() > Some(0.0), "{found}");
    }
    // More than the gateway keeps is missed, and that is found.
    let load = ["-n", "2", "--events", "1200", "--watch", "1", "--quiet", "0s", "--patience", "2s"];
    let (ended, found) = bench(&[&["resume", "--url", &url], &load[..]].concat()).await;
    assert_eq!((ended.code, &found["resume"]["is_complete"]), (Some(1), &false.into()));
    assert!(faults(&found)[0] > 0, "{found}");
}

fn names(found: &Value, into: &mut BTreeSet<String>) {
    match found {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            names(value, into);
        }),
        Value::Array(all) => all.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_the_json_is_documented_and_no_other() {
    let url = gateway().await;
    let mut all = BTreeSet::new();
    let own = std::process::id().to_string();
    for load in [&["run", "-n", "2", "--events", "2", "--warmup", "0s"][..], &["resume", "-n", "2", "--events", "2"]] {
        let (_, found) = bench(&[load, &["--url", &url, "--pid", &own]].concat()).await;
        names(&found, &mut all);
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench.md");
    let page = std::fs::read_to_string(page).expect("docs/bench.md");
    let page = page.split_once("| field |").expect("a table of fields").1;
    let named: BTreeSet<String> = page.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(named, all, "docs/bench.md against what is printed");
}
