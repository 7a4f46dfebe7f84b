//! `--redis`, against a real redis-server (Debian's package of that name).

use crate::command::{PATIENCE, ended, sluice, sluice_with_input, spawn};
use bytes::Bytes;
use futures_util::StreamExt;
use sluice_gateway::broker::announcement::{self, Announced};
use std::process::{Child, Command, Stdio};
use tokio::io::AsyncWriteExt;

struct Redis {
    process: Child,
    url: String,
    client: redis::Client,
}

impl Redis {
    async fn start() -> Self {
        Self::start_at(&format!("redis://127.0.0.1:{}", free_port())).await
    }

    async fn start_at(url: &str) -> Self {
        let (url, port) = (url.to_owned(), url.rsplit_once(':').expect("a port").1);
        let process = Command::new(std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned()))
            .args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let client = redis::Client::open(url.as_str()).expect("an address");
        let redis = Self { process, url, client };
        let answers = async {
            while redis.client.get_multiplexed_async_connection().await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("Redis starts");
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

impl Redis {
    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.client.get_multiplexed_async_connection().await.expect("connects");
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.expect("answers")
    }

    /// The data of what the channel's log holds.
    async fn log(&self, channel: &str) -> Vec<String> {
        let key = format!("sluice:log:{{sluice:{channel}}}");
        let entries: Vec<(String, Vec<String>)> = self.ask(&["XRANGE", &key, "-", "+"]).await;
        let data = |fields: Vec<String>| {
            fields.chunks(2).find(|pair| pair[0] == "data").map(|pair| pair[1].clone()).expect("data")
        };
        entries.into_iter().map(|(_, fields)| data(fields)).collect()
    }
}

#[tokio::test]
async fn events_reach_history_and_subscribers_in_order_with_the_function_and_without() {
    for installed in [true, false] {
        let redis = Redis::start().await;
        if installed {
            let install = sluice(&["redis", "install", "--redis", &redis.url, "--prefix", "p:"]).await;
            assert_eq!((install.code, install.stdout.as_str()), (Some(0), "installed\n"), "{}", install.stderr);
        }
        let mut subscription = redis.client.get_async_pubsub().await.expect("connects");
        subscription.psubscribe("*").await.expect("subscribes");

        let one = sluice(&["publish", "news", "hi", "--event", "add", "--redis", &redis.url, "--prefix", "p:"]).await;
        assert_eq!(one.code, Some(0), "{}", one.stderr);
        assert!(one.stdout.ends_with("-1\n"), "{}", one.stdout);
        let () = redis.ask(&["SET", "sluice:limits:{sluice:news}", "5000 600000000 604800 600"]).await;
        let lines: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
        let many = sluice_with_input(&["publish", "news", "--lines", "--redis", &redis.url], lines.join("\n")).await;
        assert_eq!((many.code, many.stderr.as_str()), (Some(0), ""));
        let numbers: Vec<_> = many.stdout.lines().filter_map(|line| Some(line.split_once('-')?.1)).collect();
        let expected: Vec<_> = (1..=2500).map(|n| n.to_string()).collect();
        assert_eq!(numbers, expected);
        assert_eq!(redis.log("news").await, lines);

        let messages = subscription.on_message().take(2501).map(|message| {
            let payload = Bytes::from(message.get_payload_bytes().to_vec());
            match announcement::decode(payload, 100) {
                Announced::Entry { at, event, .. } => {
                    let kind = event.event_type().map(str::to_owned);
                    (message.get_channel_name().to_owned(), at.seq, kind, event.data().to_owned())
                }
                other => panic!("{other:?}"),
            }
        });
        let received: Vec<_> = tokio::time::timeout(PATIENCE, messages.collect()).await.expect("all arrive");
        assert_eq!(received[0], ("p:news".to_owned(), 1, Some("add".to_owned()), "hi".to_owned()));
        let expected: Vec<_> =
            lines.into_iter().zip(1..).map(|(line, seq)| ("sluice:news".to_owned(), seq, None, line)).collect();
        assert_eq!(received[1..], expected);

        let log: i64 = redis.ask(&["XLEN", "p:log:{p:news}"]).await;
        assert_eq!(log, 1);
        let reserved = sluice(&["publish", "$all", "x", "--redis", &redis.url]).await;
        assert_eq!((reserved.code, reserved.stdout.as_str()), (Some(0), "-\n"), "{}", reserved.stderr);
        // What it called is what the server counted.
        let stats: String = redis.ask(&["INFO", "commandstats"]).await;
        assert_eq!(stats.contains("cmdstat_fcall:calls=25"), installed, "{stats}");
    }
}

#[tokio::test]
async fn the_prefix_that_was_named_is_the_one_that_is_used() {
    let redis = Redis::start().await;
    for prefix in ["sluice:", "sluice:shop:"] {
        let installed = sluice(&["redis", "install", "--redis", &redis.url, "--prefix", prefix]).await;
        assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    }
    let again = sluice(&["redis", "install", "--redis", &redis.url]).await;
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "already installed\n"));
    for prefix in ["sluice:", "other:"] {
        let ended = sluice(&["publish", "shop:news", "x", "--redis", &redis.url, "--prefix", prefix]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let mut logs: Vec<String> = redis.ask(&["KEYS", "*log:*"]).await;
    logs.sort();
    assert_eq!(logs, ["other:log:{other:shop:news}", "sluice:log:{sluice:shop:news}"]);
}

#[tokio::test]
async fn a_key_publishes_once_however_often_it_is_run() {
    for installed in [false, true] {
        let redis = Redis::start().await;
        if installed {
            assert_eq!(sluice(&["redis", "install", "--redis", &redis.url]).await.code, Some(0));
        }
        let publish = ["publish", "news", "--lines", "--redis", &redis.url, "--idempotency-key", "k"];
        let first = sluice_with_input(&publish, "a\nb\nc").await;
        // It was cut short the first time, as far as it knows, and has more to say.
        let second = sluice_with_input(&publish, "a\nb\nc\nd").await;
        assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}{}", first.stderr, second.stderr);
        assert!(second.stdout.starts_with(&first.stdout), "{} then {}", first.stdout, second.stdout);
        assert_eq!(redis.log("news").await, ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn functions_flushed_in_mid_run_cost_nothing() {
    let redis = Redis::start().await;
    assert_eq!(sluice(&["redis", "install", "--redis", &redis.url]).await.code, Some(0));
    let mut child = spawn(&["publish", "news", "--lines", "--redis", &redis.url]);
    let mut stdin = child.stdin.take().expect("piped");
    for (round, flush) in [&["PING"][..], &["FUNCTION", "FLUSH"], &["SCRIPT", "FLUSH"]].into_iter().enumerate() {
        let _: redis::Value = redis.ask(flush).await;
        stdin.write_all(format!("{round}a\n{round}b\n").as_bytes()).await.expect("reads");
        let taken = async {
            while redis.log("news").await.len() < 2 * (round + 1) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("is published");
    }
    drop(stdin);
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 6), "{}", ended.stderr);
    assert_eq!(redis.log("news").await, ["0a", "0b", "1a", "1b", "2a", "2b"]);
}

#[tokio::test]
async fn one_event_that_is_refused_does_not_hold_the_others() {
    let redis = Redis::start().await;
    for installed in [false, true] {
        if installed {
            assert_eq!(sluice(&["redis", "install", "--redis", &redis.url]).await.code, Some(0));
        }
        let input = format!("a\n{}\nb", "x".repeat(65537));
        let ended = sluice_with_input(&["publish", "news", "--lines", "--redis", &redis.url], input).await;
        assert_eq!((ended.code, ended.stdout.lines().count()), (Some(1), 2));
        assert!(ended.stderr.contains("line 2 not published: an event's data is at most 65536"), "{}", ended.stderr);
    }
    assert_eq!(redis.log("news").await, ["a", "b", "a", "b"]);

    // A right that is missing for one channel, found out before a transaction runs.
    let () =
        redis.ask(&["ACL", "SETUSER", "u", "on", ">pw", "+@all", "&*", "~sluice:*{sluice:news}", "~sluice:news"]).await;
    let url = redis.url.replace("redis://", "redis://u:pw@");
    let input = r#"{"channel":"news","data":"c"}
{"channel":"secret","data":"c"}
{"channel":"news","data":"d"}"#;
    let ended = sluice_with_input(&["publish", "--ndjson", "--redis", &url], input).await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(1), 2), "{}", ended.stderr);
    assert!(ended.stderr.contains("line 2 not published: Redis:"), "{}", ended.stderr);
    assert_eq!(redis.log("news").await[4..], ["c", "d"]);
}

#[tokio::test]
async fn a_redis_that_is_away_is_told_in_time() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let ended = sluice(&["publish", "news", "x", "--redis", &url, "--retry-for", "500ms"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("not published: Redis:"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_redis_that_comes_back_in_time_gets_every_event_once() {
    let mut redis = Redis::start().await;
    let url = redis.url.clone();
    let mut child = spawn(&["publish", "news", "--lines", "--redis", &url, "--retry-for", "25s"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"a\n").await.expect("reads");
    while redis.log("news").await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let _ = redis.process.kill();
    let _ = redis.process.wait();
    stdin.write_all(b"b\nc\n").await.expect("reads");
    let restarted = Redis::start_at(&url).await;
    drop(stdin);
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 3), "{}", ended.stderr);
    assert_eq!(restarted.log("news").await, ["b", "c"]);
}

#[tokio::test]
async fn installing_says_what_is_wrong() {
    let redis = Redis::start().await;
    let () = redis.ask(&["ACL", "SETUSER", "u", "on", ">pw", "+@all", "-function", "&*", "~*"]).await;
    let url = redis.url.replace("redis://", "redis://u:pw@");
    let ended = sluice(&["redis", "install", "--redis", &url]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("not installed") && ended.stderr.contains("+function|load"), "{}", ended.stderr);
    let ended = sluice(&["redis", "install", "--redis", "nonsense"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("an example is"), "{}", ended.stderr);
}
