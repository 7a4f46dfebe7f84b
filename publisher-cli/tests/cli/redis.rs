//! `--redis`, against a real redis-server (Debian's package of that name).

use crate::command::{PATIENCE, sluice, sluice_with_input};
use futures_util::StreamExt;
use std::process::{Child, Command, Stdio};

struct Redis {
    process: Child,
    url: String,
    client: redis::Client,
}

impl Redis {
    async fn start() -> Self {
        let port = free_port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let url = format!("redis://127.0.0.1:{port}");
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

#[tokio::test]
async fn events_reach_subscribers_in_order_as_a_gateway_reads_them() {
    let redis = Redis::start().await;
    let mut subscription = redis.client.get_async_pubsub().await.expect("connects");
    subscription.psubscribe("*").await.expect("subscribes");

    let one = sluice(&["publish", "news", "hi", "--event", "add", "--redis", &redis.url, "--prefix", "p:"]).await;
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), "-\n"), "{}", one.stderr);
    let lines: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
    let many = sluice_with_input(&["publish", "news", "--lines", "-q", "--redis", &redis.url], lines.join("\n")).await;
    assert_eq!((many.code, many.stdout.as_str()), (Some(0), ""), "{}", many.stderr);

    let received: Vec<(String, String)> = tokio::time::timeout(
        PATIENCE,
        subscription
            .on_message()
            .take(2501)
            .map(|message| (message.get_channel_name().to_owned(), message.get_payload().expect("text")))
            .collect(),
    )
    .await
    .expect("all arrive");
    assert_eq!(received[0], ("p:news".to_owned(), r#"{"event":"add","data":"hi"}"#.to_owned()));
    let expected: Vec<_> = lines.into_iter().map(|line| ("sluice:news".to_owned(), line)).collect();
    assert_eq!(received[1..], expected);
}

#[tokio::test]
async fn a_redis_that_is_away_is_told_in_time() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let ended = sluice(&["publish", "news", "x", "--redis", &url, "--retry-for", "500ms"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("not published: Redis:"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_promise_that_cannot_be_kept_is_not_made() {
    let redis = Redis::start().await;
    let ended = sluice(&["publish", "news", "x", "--redis", &redis.url, "--idempotency-key", "k"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("idempotency key"), "{}", ended.stderr);
}
