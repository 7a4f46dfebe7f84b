//! `sluice tail` goes on where it stopped, across restarts of the gateway and of its own.

use serde_json::Value;
use sluice_tests::{
    cli::{self, sluice_ok},
    cluster::Cluster,
    gateway::Gateway,
    numbered::publish,
    process::directory,
    redis::Redis,
    wait::{self, PATIENCE},
};
use tokio::io::{AsyncBufReadExt, BufReader};

fn data(stdout: &str) -> Vec<String> {
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stdout.lines().map(|text| line(text)["data"].as_str().expect("data").to_owned()).collect()
}

fn payloads(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("a {number}")).collect()
}

#[tokio::test]
async fn with_a_cursor_file_each_run_goes_on_where_the_one_before_ended() {
    let gateway = Gateway::start("").await;
    let directory = directory();
    let file = directory.path().join("cursor").display().to_string();
    let url = format!("http://{}", gateway.address);
    publish(&gateway.http, "a", 1..=50).await;
    let tail = async |count: &str| {
        let args = ["tail", "a", "--json", "--url", &url, "--cursor-file", &file, "--since", "earliest"];
        data(&sluice_ok(&[&args[..], &["--count", count]].concat()).await)
    };
    assert_eq!(tail("10").await, payloads(1..=10));
    assert_eq!(tail("1").await, payloads(11..=11));
    publish(&gateway.http, "a", 51..=60).await;
    assert_eq!(tail("49").await, payloads(12..=60));
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing() {
    let gateway = Gateway::start("").await;
    let directory = directory();
    let file = directory.path().join("cursor").display().to_string();
    let url = format!("http://{}", gateway.address);
    publish(&gateway.http, "a", 1..=400).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let args = ["tail", "a", "--json", "--url", &url, "--cursor-file", &file, "--since", "earliest"];
        let mut child = cli::spawn(&args);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for _ in 0..40 {
            let line = wait::soon("a line", lines.next_line()).await.expect("readable").expect("a line");
            seen.extend(data(&line));
        }
        child.start_kill().expect("our own child");
        wait::soon("its end", child.wait()).await.expect("our own child");
        // What it had printed and nobody had read yet was printed all the same.
        while let Ok(Some(line)) = lines.next_line().await {
            seen.extend(
                serde_json::from_str::<Value>(&line).ok().and_then(|line| Some(line["data"].as_str()?.to_owned())),
            );
        }
    }
    // What was printed after the cursor was last recorded is printed again; nothing is left out.
    seen.sort_by_key(|data| data[2..].parse::<u64>().expect("a number"));
    seen.dedup();
    let count = seen.len() as u64;
    assert!(count > 40, "each run gets further: {count}");
    assert_eq!(seen, payloads(1..=count));
}

#[tokio::test]
async fn it_goes_on_across_restarts_of_replicas_and_redis() {
    let config = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";
    let mut cluster = Cluster::start(Redis::start_durable().await, 2, config).await;
    let url = format!("http://{}", cluster.nginx.address);
    let mut child = cli::spawn(&["tail", "a", "--json", "--url", &url]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let open = async || {
        let mut open = 0;
        for gateway in &cluster.gateways {
            open += gateway.connections().await;
        }
        (open == 1).then_some(())
    };
    wait::until("the tail is there", open).await;
    for round in 0..4 {
        publish(&cluster.gateways[round as usize % 2].http, "a", round * 10 + 1..=round * 10 + 10).await;
        for number in round * 10 + 1..=round * 10 + 10 {
            let line = wait::soon("a line", lines.next_line()).await.expect("readable").expect("a line");
            assert_eq!(data(&line), payloads(number..=number));
        }
        if round == 1 {
            cluster.redis.kill();
            cluster.redis.restart().await;
        }
        for gateway in &mut cluster.gateways {
            gateway.process.kill();
            gateway.restart();
            gateway.wait_ready(PATIENCE).await;
        }
    }
}
