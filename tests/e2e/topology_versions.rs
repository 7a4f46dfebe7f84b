//! Servers of other versions and makers: nothing but what they lack is different.

use sluice_tests::{
    client::Client,
    gateway::{Gateway, Options},
    redis::{Kind, Redis, cluster::RedisCluster, server},
    wait::{self, PATIENCE},
};

/// The program, what it calls itself, and whether it has functions.
const SERVERS: [(&str, &str, &str, bool); 3] = [
    ("redis-6.2", "redis", "6.2.5", false),
    ("valkey-8.1", "valkey", "8.1.8", true),
    ("valkey-9.1", "valkey", "9.1.2", true),
];
const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";

async fn two(url: &str) -> [Gateway; 2] {
    let options = Options { config: CONFIG.to_owned(), redis: Some(url.to_owned()), ..Options::default() };
    let gateways = [Gateway::spawn(options.clone()), Gateway::spawn(options)];
    for gateway in &gateways {
        gateway.wait_ready(PATIENCE).await;
    }
    gateways
}

/// Live events, a resume, and a publish that is repeated.
async fn delivers(gateways: &[Gateway; 2], channels: &[&str]) {
    let live = gateways[1].subscribe(channels).await;
    for channel in channels {
        for number in 1..=5 {
            gateways[number % 2].publish(channel, format!("{channel} {number}")).await;
        }
        live.wait_data(&format!("{channel} 5")).await;
    }
    let cursor = live.read(|log| log.last_event_id.clone());
    for channel in channels {
        let path = format!("/channels/{channel}/events");
        for gateway in gateways {
            let answer = gateway.http.send("POST", &path, &[("idempotency-key", "once")], format!("{channel} 6")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let resumed = Client::once(gateways[0].events(channels).header("Last-Event-ID", &cursor)).await;
    for channel in channels {
        gateways[1].publish(channel, format!("{channel} 7")).await;
        for client in [&live, &resumed] {
            client.wait_data(&format!("{channel} 7")).await;
        }
    }
    let expected = |from: u32| {
        let mut all: Vec<_> =
            channels.iter().flat_map(|channel| (from..=7).map(move |number| format!("{channel} {number}"))).collect();
        all.sort();
        all
    };
    for (client, from) in [(&live, 1), (&resumed, 6)] {
        let mut data = client.data();
        data.sort();
        assert_eq!(data, expected(from));
    }
}

#[tokio::test]
async fn each_delivers_and_says_what_it_is_and_lacks() {
    for (program, software, version, functions) in SERVERS {
        let redis = Redis::start_as(Kind { server: server(program), ..Kind::default() }).await;
        let gateways = two(&redis.url()).await;
        delivers(&gateways, &["a", "b"]).await;
        let labels = [format!("software=\"{software}\""), format!("version=\"{version}\"")];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        gateways[0].wait_metric("sse_redis_info", &labels, 1.0).await;
        assert_eq!(gateways[0].process.stderr().contains("this server lacks functions"), !functions, "{program}");
        let _: String = redis.run(&["SCRIPT", "FLUSH"]).await;
        delivers(&gateways, &["c"]).await;
        if functions {
            let _: String = redis.run(&["FUNCTION", "FLUSH"]).await;
            let live = gateways[0].subscribe(&["by-function"]).await;
            let published = async || {
                let mut connection = redis.connection().await;
                let mut call = redis::cmd("FCALL");
                call.arg("sluice_publish").arg(1).arg("sluice:by-function").arg("").arg("back");
                call.query_async::<String>(&mut connection).await.ok()
            };
            wait::until("the function comes back by itself", published).await;
            live.wait_data("back").await;
        }
    }
}

#[tokio::test]
async fn each_delivers_as_a_cluster() {
    for (program, ..) in SERVERS {
        let kind = Kind { server: server(program), ..Kind::default() };
        let cluster = RedisCluster::start(kind, 3, false).await;
        let gateways = two(&cluster.url()).await;
        delivers(&gateways, &["a", "b", "c", "d", "e"]).await;
        let counts = gateways[0].http.get("/connections").await.text();
        assert!(counts.contains("\"replicas\":2"), "{program}: {counts}");
    }
}
