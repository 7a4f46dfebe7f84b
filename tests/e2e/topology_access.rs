//! Ways to be let in: TLS with a certificate of one's own, users with the documented rights, sentinels' own passwords, a
//! socket in a file; and what is said where one is not let in.

use sluice_tests::{
    cli,
    client::Client,
    gateway::{Gateway, Options},
    numbered,
    redis::{Kind, Redis, cluster::RedisCluster, sentinel::Sentinels},
    tls::Authority,
    wait::{self, PATIENCE},
};
use std::sync::Arc;

/// What [`Authority::write_both`] has put beside a gateway.
const FILES: &str = "ca = \"ca.crt\"\ncertificate = \"client.crt\"\nkey = \"client.key\"\n";
const PAGE: &str = include_str!("../../docs/redis.md");

fn rights() -> String {
    let line = PAGE.lines().find(|line| line.starts_with("user sluice on ")).expect("it is on the page");
    line.to_owned()
}

async fn works(gateway: &Gateway) {
    gateway.wait_ready(PATIENCE).await;
    let client: Client = gateway.subscribe(&["a"]).await;
    gateway.publish("a", "x").await;
    client.wait_data("x").await;
}

#[tokio::test]
async fn redis_by_tls_with_a_certificate_of_the_gateways_own() {
    let authority = Authority::new();
    let tls = sluice_tests::ports::free().port();
    let args = [
        "--tls-port",
        &tls.to_string(),
        "--tls-cert-file",
        "server.crt",
        "--tls-key-file",
        "server.key",
        "--tls-ca-cert-file",
        "ca.crt",
        "--tls-auth-clients",
        "yes",
    ];
    let kind = Kind { args: args.map(str::to_owned).into(), ..Kind::default() };
    let redis = Redis::spawn(kind, |directory| authority.write_both(directory));
    redis.wait_ready().await;
    let url = format!("rediss://127.0.0.1:{tls}");
    let with = |settings: &str| Options {
        config: format!("[redis]\n{settings}"),
        redis: Some(url.clone()),
        ..Options::default()
    };
    let gateway = Gateway::start_beside(with(FILES), |directory| authority.write_both(directory)).await;
    works(&gateway).await;

    // The tool too, and without the authority it is told why not.
    let file = |name: &str| redis.directory().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let files = ["--redis-ca", &ca, "--redis-cert", &certificate, "--redis-key", &key];
    let stats = cli::sluice(&[&["redis", "stats", "--redis", &url][..], &files].concat()).await;
    assert!(stats.code == Some(0) && stats.stdout.contains("channels with history"), "{stats:?}");
    let refused = cli::sluice(&["redis", "stats", "--redis", &url]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("certificate"), "{refused:?}");
}

#[tokio::test]
async fn sentinels_and_their_servers_by_tls_are_followed_through_a_failover() {
    let authority = Arc::new(Authority::new());
    let kind = Kind { durable: true, tls: Some(Arc::clone(&authority)), ..Kind::default() };
    let mut all = Sentinels::start(kind, "").await;
    let with = |settings: &str| Options {
        config: format!("[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n[redis]\n{settings}"),
        redis: Some(all.url()),
        ..Options::default()
    };
    let (options, refused) = (with(&format!("wait_replicas = 1\n{FILES}")), with("ca = \"ca.crt\"\n"));
    let write = |directory: &std::path::Path| authority.write_both(directory);
    let gateways = [Gateway::start_beside(options.clone(), write).await, Gateway::start_beside(options, write).await];
    let client = gateways[1].subscribe(&["a"]).await;
    numbered::publish(&gateways[0].http, "a", 1..=10).await;
    numbered::wait_number(&client, "a", 10).await;
    all.servers[0].kill();
    all.promoted(0).await;
    all.servers[0].restart().await;
    all.wait_followed().await;
    numbered::publish(&gateways[0].http, "a", 11..=20).await;
    numbered::wait_number(&client, "a", 20).await;
    numbered::assert_saw("live", &client, "a", 1..=20, &[]);
    // Without a certificate of its own it is let in nowhere.
    let refused = Gateway::spawn_beside(refused, write);
    wait::until("it says why", async || {
        let answer = refused.admin.try_send("GET", "/readyz", &[], "").await.ok()?;
        (answer.status == 503 && answer.text().contains("rtificate")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_documented_user_on_a_cluster() {
    let cluster = RedisCluster::start(Kind::default(), 3, true).await;
    let rights = rights();
    for server in &cluster.servers {
        let words: Vec<_> = ["ACL", "SETUSER"].into_iter().chain(rights.split(' ').skip(1)).collect();
        let () = server.run(&words).await;
    }
    let url = cluster.url().replace("redis+cluster://", "redis+cluster://sluice:secret@");
    let options = Options { config: "[redis]\nwait_replicas = 1\n".to_owned(), redis: Some(url), ..Options::default() };
    let gateways = [Gateway::start_with(options.clone()).await, Gateway::start_with(options).await];
    for gateway in &gateways {
        works(gateway).await;
    }
    let counts = gateways[0].http.get("/connections").await.text();
    assert!(counts.contains("\"replicas\":2"), "{counts}");
    // A slot on its way, which has to be asked for, and an entry of the outbox.
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:a"]).await;
    let from = cluster.master_of("a").await;
    let to = (from + 1) % 3;
    let client = gateways[0].subscribe(&["a"]).await;
    cluster.begin_to_move(slot, from, to).await;
    cluster.move_keys(slot, from, to).await;
    gateways[1].publish("a", "asked").await;
    assert!(gateways[1].http.get("/channels/a/events?since=earliest").await.text().contains("asked"));
    cluster.end_move(slot, from, to).await;
    let stream = &cluster.servers[cluster.owner_of_key("sluice:intake").await];
    let _: String = stream.run(&["XADD", "sluice:intake", "*", "channel", "a", "data", "entry"]).await;
    client.wait_data("entry").await;
    assert_eq!(client.data(), ["asked", "entry"]);
    for server in &cluster.servers {
        let log: Vec<Vec<redis::Value>> = server.run(&["ACL", "LOG"]).await;
        // The function library is not theirs to install.
        let others = log.iter().filter(|entry| !format!("{entry:?}").contains("function"));
        assert_eq!(others.count(), 0, "{log:?}");
    }
}

#[tokio::test]
async fn a_user_that_may_not_subscribe_on_a_cluster_makes_no_replica_ready() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let rights = rights();
    let missing = rights.replace(" +ssubscribe", "");
    assert_ne!(rights, missing);
    let allow = async |rights: &str| {
        for server in &cluster.servers {
            let words: Vec<_> = ["ACL", "SETUSER"].into_iter().chain(rights.split(' ').skip(1)).collect();
            let () = server.run(&words).await;
        }
    };
    allow(&missing).await;
    let url = cluster.url().replace("redis+cluster://", "redis+cluster://sluice:secret@");
    let gateway = Gateway::spawn(Options { redis: Some(url), ..Options::default() });
    wait::until("it says why", async || {
        let answer = gateway.admin.try_send("GET", "/readyz", &[], "").await.ok()?;
        (answer.status == 503 && answer.text().contains("may not SSUBSCRIBE")).then_some(())
    })
    .await;
    allow(&rights).await;
    gateway.wait_ready(wait::PATIENCE).await;
    works(&gateway).await;
}

#[tokio::test]
async fn sentinels_with_a_password_of_their_own() {
    let all = Sentinels::start(Kind::default(), "requirepass watchword\nsentinel sentinel-pass watchword\n").await;
    let places: Vec<_> = all.sentinels.iter().map(|one| format!("\"redis://{}\"", one.address)).collect();
    let settings = |password: &str| {
        format!(
            "[redis]\nsentinels = [{}]\nmaster = \"orders\"\nsentinel_password = \"{password}\"\n",
            places.join(", ")
        )
    };
    let gateway = Gateway::start(&settings("watchword")).await;
    works(&gateway).await;
    let shown = gateway.admin.get("/config").await.text();
    assert!(!shown.contains("watchword"), "{shown}");

    let refused = Gateway::spawn(Options { config: settings("wrong"), ..Options::default() });
    let told = wait::until("it says why", async || {
        let answer = refused.admin.try_send("GET", "/readyz", &[], "").await.ok()?;
        let text = answer.text();
        (answer.status == 503 && text.contains("WRONGPASS")).then_some(text)
    })
    .await;
    assert!(!told.contains("\"wrong\""), "{told}");
}

#[tokio::test]
async fn a_socket_in_a_file_with_a_password_from_another() {
    let args = ["--unixsocket", "redis.sock", "--requirepass", "hunter2"];
    let credentials = ":hunter2@".to_owned();
    let redis = Redis::start_as(Kind { args: args.map(str::to_owned).into(), credentials, ..Kind::default() }).await;
    let password = redis.directory().join("password");
    std::fs::write(&password, "hunter2\n").expect("written");
    let config = format!(
        "[redis]\nurl = \"unix://{}\"\npassword_file = \"{}\"\n",
        redis.directory().join("redis.sock").display(),
        password.display()
    );
    works(&Gateway::start(&config).await).await;
}

#[tokio::test]
async fn what_redis_check_finds_is_named_and_what_to_do() {
    let redis = Redis::start_as(Kind {
        args: ["--maxmemory-policy", "allkeys-lru"].map(str::to_owned).into(),
        ..Kind::default()
    })
    .await;
    let gateway = Gateway::start_with(Options { redis: Some(redis.url()), ..Options::default() }).await;
    gateway.wait_metric("sse_redis_findings", &["finding=\"eviction\""], 1.0).await;
    let check = cli::sluice(&["redis", "check", "--redis", &redis.url()]).await;
    assert_eq!(check.code, Some(1));
    for part in [
        "redis 7.0",
        "eviction: maxmemory-policy is allkeys-lru",
        "CONFIG SET maxmemory-policy noeviction",
        "persistence: ",
    ] {
        assert!(check.stdout.contains(part), "{part}: {check:?}");
    }
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let _: String = redis.run(&["CONFIG", "SET", "save", "3600 1"]).await;
    let check = cli::sluice(&["redis", "check", "--redis", &redis.url()]).await;
    assert!(check.code == Some(0) && check.stdout.contains("nothing found"), "{check:?}");
    // One who may do next to nothing.
    let _: String = redis
        .run(&[
            "ACL",
            "SETUSER",
            "poor",
            "on",
            ">pw",
            "~sluice:*",
            "&sluice:*",
            "-@all",
            "+eval",
            "+info",
            "+time",
            "+zrangebyscore",
            "+hello",
            "+client",
            "+ping",
        ])
        .await;
    let check = cli::sluice(&["redis", "check", "--redis", &format!("redis://poor:pw@{}", redis.address())]).await;
    assert!(
        check.stdout.contains("rights: the user lacks rights within the prefix sluice:")
            && check.stdout.contains("xadd"),
        "{check:?}"
    );
}
