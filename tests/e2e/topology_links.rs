//! A link that nobody must go on listening to is cut: to a master that hangs where another may take its place, and to a
//! server that is none.

use sluice_tests::{
    gateway::{Gateway, Options},
    http::Http,
    redis::{Kind, Redis, sentinel::Sentinels},
    wait::{self, PATIENCE},
};
use std::time::Duration;

/// Commands may take so long here that it is not their time which is up.
const SLOW: &str = "[redis]\ntimeout = \"25s\"\n";
/// Less than that by far, and far more than the second that it takes.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_master_that_hangs_and_may_be_replaced_is_cut_off_before_its_commands_are_given_up() {
    let mut all = Sentinels::start(Kind::default(), "").await;
    let options = Options { config: SLOW.to_owned(), redis: Some(all.url()), ..Options::default() };
    let gateway = Gateway::start_with(options).await;
    let client = gateway.subscribe(&["a"]).await;
    // Nobody says that there is another by now.
    for sentinel in &mut all.sentinels {
        sentinel.process.kill();
    }
    all.servers[0].signal(rustix::process::Signal::STOP);
    wait::until_within("the link is cut", SOON, async || {
        (gateway.metric("sse_redis_up", &[]).await == 0.0).then_some(())
    })
    .await;
    all.servers[0].signal(rustix::process::Signal::CONT);
    gateway.wait_metric("sse_redis_up", &[], 1.0).await;
    gateway.publish("a", "after").await;
    client.wait_data("after").await;
}

#[tokio::test]
async fn a_sentinel_that_was_cut_off_leads_nobody_back() {
    let args = ["--requirepass", "hunter2", "--masterauth", "hunter2"].map(str::to_owned).into();
    let kind = Kind { args, credentials: ":hunter2@".to_owned(), ..Kind::default() };
    let mut all = Sentinels::start(kind, "sentinel auth-pass orders hunter2\n").await;
    all.add_deaf("sentinel auth-pass orders wrong\n");
    let options = Options { redis: Some(all.url()), ..Options::default() };
    let gateway = Gateway::start_with(options.clone()).await;
    all.failover().await;
    let now = all.promoted(0).await;
    let at = async |gateway: &Gateway| {
        // On a connection of its own: one that was kept is closed after ten seconds, which is about what comes between.
        let metrics = Http::new(gateway.admin_address).get("/metrics").await.text();
        let is_at = |nth: usize| metrics.contains(&format!("master=\"{}\"", all.servers[nth].address()));
        [is_at(now), is_at(1 - now)]
    };
    wait::until("it goes there", async || (at(&gateway).await == [true, false]).then_some(())).await;
    // Those that know nothing yet go there too, some after they were told of the old one first; and all stay.
    let mut gateways: Vec<_> = (0..6).map(|_| Gateway::spawn(options.clone())).collect();
    for gateway in &gateways {
        gateway.wait_ready(PATIENCE).await;
    }
    gateways.push(gateway);
    all.wait_followed().await;
    let client = gateways[0].subscribe(&["a"]).await;
    for (nth, gateway) in gateways.iter().enumerate() {
        gateway.publish("a", format!("event {nth}")).await;
        client.wait_events(nth + 1).await;
        assert_eq!(at(gateway).await, [true, false], "{}", gateway.process.stderr());
    }
}

#[tokio::test]
async fn a_server_that_is_a_replica_is_left_whoever_names_it() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    let of = [master.address().ip().to_string(), master.address().port().to_string()];
    let _: String = replica.run(&["REPLICAOF", &of[0], &of[1]]).await;
    let gateway = Gateway::spawn(Options { redis: Some(replica.url()), ..Options::default() });
    wait::until("it says why", async || {
        let answer = gateway.admin.try_send("GET", "/readyz", &[], "").await.ok()?;
        (answer.status == 503 && answer.text().contains("is a replica, not a master")).then_some(())
    })
    .await;
    let _: String = replica.run(&["REPLICAOF", "NO", "ONE"]).await;
    gateway.wait_ready(PATIENCE).await;
    let client = gateway.subscribe(&["a"]).await;
    gateway.publish("a", "one").await;
    client.wait_data("one").await;
    // And one that becomes one under an open connection.
    let _: String = replica.run(&["REPLICAOF", &of[0], &of[1]]).await;
    gateway.wait_metric("sse_redis_up", &[], 0.0).await;
}

#[tokio::test]
async fn a_master_that_was_a_replica_for_a_moment_is_a_cut_although_nobody_saw_it() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let gateway = Gateway::start_with(Options { redis: Some(redis.url()), ..Options::default() }).await;
    let client = gateway.subscribe(&["a"]).await;
    assert_eq!(gateway.metric("sse_redis_reconnects_total", &[]).await, 0.0);
    let mut moment = redis::pipe();
    moment.atomic();
    moment.cmd("REPLICAOF").arg(other.address().ip().to_string()).arg(other.address().port()).ignore();
    moment.cmd("REPLICAOF").arg("NO").arg("ONE").ignore();
    let () = moment.query_async(&mut redis.connection().await).await.expect("done");
    gateway.wait_metric("sse_redis_reconnects_total", &[], 1.0).await;
    gateway.publish("a", "after").await;
    client.wait_data("after").await;
}
