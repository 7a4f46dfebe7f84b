//! Good clients of a gateway, while something is done to it.

use sluice_tests::{
    check::{once_and_in_order, payload},
    client::Client,
    cluster::connect,
    figures::Figures,
    gateway::Gateway,
    wait,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const CLIENTS: usize = 100;
const CHANNEL: &str = "news";
/// Events that go out at the least, one after the other, while the attack lasts and after.
const EVENTS: u64 = 30;
/// How long an event may take to all of them: this machine has other things to do, and the attackers are on it too.
const ON_TIME: Duration = Duration::from_secs(10);
/// How much larger the gateway may become. Whatever is unbounded is more than this in no time.
const MEMORY: f64 = (192 << 20) as f64;
/// Connections that may be left: those of the tests' own requests.
const KEPT: f64 = 20.0;

pub(crate) struct Siege {
    pub(crate) gateway: Gateway,
    clients: Vec<Client>,
    published: AtomicU64,
    before: Figures,
}

impl Siege {
    pub(crate) async fn of(config: &str) -> Self {
        let gateway = Gateway::start(config).await;
        let clients = connect(CLIENTS, |_| gateway.subscribe(&[CHANNEL])).await;
        let siege = Self { before: Figures::of(&gateway).await, gateway, clients, published: AtomicU64::new(0) };
        siege.event().await;
        siege
    }

    /// Attacks while events go out.
    pub(crate) async fn during<T>(&self, attack: impl Future<Output = T>) -> T {
        let mut events = std::pin::pin!(async {
            loop {
                self.event().await;
            }
        });
        // An event that is on its way when this ends is taken up by the next one: it has the same key.
        tokio::select! {
            outcome = async {
                let outcome = attack.await;
                let enough = async || (self.published.load(Ordering::Acquire) >= EVENTS).then_some(());
                wait::until("enough events have gone out", enough).await;
                outcome
            } => outcome,
            () = &mut events => unreachable!("it goes on for ever"),
        }
    }

    /// Publishes the next event, as a publisher does that must: again, with its key, until it is taken.
    async fn event(&self) {
        let number = self.published.load(Ordering::Acquire) + 1;
        let (data, key) = (payload(CHANNEL, number), format!("event-{number}"));
        let (path, headers) = (format!("/channels/{CHANNEL}/events"), [("idempotency-key", key.as_str())]);
        let publish = async || {
            let answer = self.gateway.http.try_send("POST", &path, &headers, data.clone()).await.ok()?;
            matches!(answer.status, 200).then_some(())
        };
        wait::until("the event is published", publish).await;
        self.published.store(number, Ordering::Release);
        for client in &self.clients {
            client.wait_within("an event is on time", ON_TIME, |log| log.data().any(|came| came == data)).await;
        }
        let memory = self.gateway.metric("process_resident_memory_bytes", &[]).await;
        assert!(memory < self.before.memory + MEMORY, "{memory} bytes, and before {:?}", self.before);
    }

    /// The attackers are gone: so must be everything that they had.
    pub(crate) async fn lift(self) {
        self.event().await;
        let is_as_before = async || Figures::of(&self.gateway).await.is_as(&self.before, KEPT).then_some(());
        wait::until(&format!("all is as before: {:?}", self.before), is_as_before).await;
        let last = self.published.load(Ordering::Acquire);
        for client in &self.clients {
            client.read(|log| {
                assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "a good client was cut");
                let verdict = once_and_in_order(CHANNEL, log.data(), 1..=last);
                assert!(verdict.is_ok(), "{verdict:?}");
            });
        }
    }
}
