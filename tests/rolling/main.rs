//! A rollout at noon: replicas behind the repository's nginx are replaced one after the other under traffic, and nobody
//! notices. By itself, as it counts what happens in each second.

use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use sluice_tests::{
    chaos::publishers::Publishers,
    client::Request,
    follower::{Follower, Habit},
    gateway::{Gateway, Options, events_target},
    nginx::Nginx,
    ports,
    redis::Redis,
    wait::{self, PATIENCE},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

const REPLICAS: usize = 3;
const CLIENTS: usize = 3_000;
/// Where not the number matters.
const FEW_CLIENTS: usize = 600;
const CHANNELS: usize = 100;
const EVENTS_PER_SECOND: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Clients that connect at the same time.
const CONNECTING: usize = 32;

/// Whoever holds it runs alone.
static ALONE: Mutex<()> = Mutex::const_new(());

/// All of it, and a place more at nginx than there are replicas, for the one that comes before another goes.
struct Rollout {
    config: String,
    redis: Redis,
    _nginx: Nginx,
    places: Vec<SocketAddr>,
    /// By place.
    gateways: BTreeMap<usize, Gateway>,
    followers: Vec<Follower>,
    publishers: Publishers,
}

impl Rollout {
    async fn start(config: &str, replicas: usize, places: usize, clients: usize) -> Self {
        let redis = Redis::start_durable().await;
        let options = Options { config: config.to_owned(), redis: Some(redis.url()), ..Options::default() };
        let mut gateways = BTreeMap::new();
        let mut addresses = Vec::new();
        for place in 0..replicas {
            let gateway = Gateway::start_with(options.clone()).await;
            addresses.push(gateway.address);
            gateways.insert(place, gateway);
        }
        addresses.extend((replicas..places).map(|_| ports::free()));
        let nginx = Nginx::start(&addresses).await;
        let names: Vec<String> = (0..CHANNELS).map(|nth| format!("c{nth}")).collect();
        let followers = (0..clients).map(|nth| {
            let channel = names[nth % CHANNELS].as_str();
            let request = Request::new(nginx.address, &events_target(&[channel]));
            async move { Follower::start(request, &[channel], Habit::Faithful).await }
        });
        let followers = stream::iter(followers).buffered(CONNECTING).collect().await;
        // Through nginx as well: a publisher too must notice nothing.
        let publishers = Publishers::start(vec![nginx.address], &names, EVENTS_PER_SECOND, 1);
        Self { config: config.to_owned(), redis, _nginx: nginx, places: addresses, gateways, followers, publishers }
    }

    fn free_place(&self) -> usize {
        (0..self.places.len()).find(|place| !self.gateways.contains_key(place)).expect("one more place than replicas")
    }

    /// Starts a replica at the free place, and waits until it is ready.
    async fn add(&mut self) -> usize {
        let place = self.free_place();
        let options = Options {
            config: self.config.clone(),
            redis: Some(self.redis.url()),
            address: Some(self.places[place]),
            ..Options::default()
        };
        self.gateways.insert(place, Gateway::start_with(options).await);
        place
    }

    /// Asks a replica to leave; waits until it has; answers how many streams it had, and since when it was leaving.
    async fn remove(&mut self, place: usize) -> (f64, Instant) {
        let mut gateway = self.gateways.remove(&place).expect("a replica");
        let streams = gateway.metric("sse_connections_active", &[]).await;
        let from = Instant::now();
        gateway.process.signal(Signal::TERM);
        let status = gateway.process.end(WINDOW + PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{status}");
        (streams, from)
    }

    /// Streams of each replica.
    async fn shares(&self) -> Vec<f64> {
        let mut shares = Vec::new();
        for gateway in self.gateways.values() {
            shares.push(gateway.metric("sse_connections_active", &[]).await);
        }
        shares
    }

    /// Waits until every client is connected.
    async fn wait_all_connected(&self) {
        let all = self.followers.len() as f64;
        let whole = async || (self.shares().await.iter().sum::<f64>() >= all).then_some(());
        wait::until("everyone is connected again", whole).await;
    }

    /// Ends it all. Every client must have had every event once and in order, and no status, gap or sending away; and of
    /// its connections no more than so many may have broken. Answers how often publishers had to try again.
    async fn judge(self, broken: usize) -> u64 {
        let (counts, repeated) = self.publishers.stop().await;
        for follower in &self.followers {
            let channel = follower.channels[0].clone();
            follower.wait_number(&channel, counts[&channel]).await;
            follower.assert_saw(&channel, &[1..=counts[&channel]], 0);
            follower.read(|seen| {
                assert_eq!((seen.refused, seen.turned_away), (None, 0), "{channel}");
                assert!(seen.cut <= broken, "{channel}: {} of {} connections broke", seen.cut, seen.connections);
            });
        }
        assert!(counts.values().all(|&count| count > 5), "{counts:?}");
        repeated
    }
}

/// The most that happened within any second.
fn most_in_a_second(mut times: Vec<Instant>) -> usize {
    times.sort_unstable();
    let until = |from: usize| times[from..].iter().take_while(|&&time| time - times[from] < SECOND).count();
    (0..times.len()).map(until).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "what was measured")]
async fn replicas_are_replaced_twice_round_and_nobody_notices() {
    let _alone = ALONE.lock().await;
    let config = format!("[drain]\ndelay = \"1s\"\nwindow = \"{}s\"\n", WINDOW.as_secs());
    let mut rollout = Rollout::start(&config, REPLICAS, REPLICAS + 1, CLIENTS).await;
    for round in 0..2 {
        let old: Vec<_> = rollout.gateways.keys().copied().collect();
        for place in old {
            let added = rollout.add().await;
            let (streams, from) = rollout.remove(place).await;
            rollout.wait_all_connected().await;
            let to = Instant::now();
            let times: Vec<_> = rollout
                .followers
                .iter()
                .flat_map(|one| one.read(|seen| seen.connected.clone()))
                .filter(|&time| time >= from && time <= to)
                .collect();
            let (came, most, even) = (times.len(), most_in_a_second(times), streams / WINDOW.as_secs_f64());
            eprintln!(
                "round {round}: {place} had {streams} streams; {came} reconnects, at most {most} in a second, {even} if even"
            );
            assert!(came as f64 <= streams, "each came back once: {came} of {streams}");
            assert!(most as f64 <= 1.5 * even, "{most} in a second, {even} if even");
            let share = rollout.gateways[&added].metric("sse_connections_active", &[]).await;
            assert!(share >= 0.9 * CLIENTS as f64 / REPLICAS as f64, "the new one has its share: {share}");
        }
    }
    let shares = rollout.shares().await;
    eprintln!("shares at the end: {shares:?}");
    assert_eq!(rollout.judge(0).await, 0, "no publisher had to try again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_kill_9_only_the_resume_shows() {
    let _alone = ALONE.lock().await;
    let mut rollout = Rollout::start("", REPLICAS, REPLICAS + 1, FEW_CLIENTS).await;
    for _ in 0..2 {
        let (&place, gateway) = rollout.gateways.iter_mut().next().expect("a replica");
        gateway.process.kill();
        rollout.gateways.remove(&place);
        rollout.wait_all_connected().await;
        rollout.add().await;
    }
    rollout.judge(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_more_gets_its_share_as_streams_come_of_age() {
    let _alone = ALONE.lock().await;
    let mut rollout = Rollout::start("[stream]\nmax_age = \"4s\"\n", REPLICAS - 1, REPLICAS, FEW_CLIENTS).await;
    rollout.wait_all_connected().await;
    let added = rollout.add().await;
    let even = FEW_CLIENTS as f64 / REPLICAS as f64;
    let share = async || rollout.gateways[&added].metric("sse_connections_active", &[]).await;
    wait::until("it has its share", async || (share().await >= 0.8 * even).then_some(())).await;
    assert_eq!(rollout.judge(0).await, 0, "no publisher had to try again");
}
