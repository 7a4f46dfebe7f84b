//! A client that reads too slowly, on a connection whose channels have several policies. The hub, its shard and its thread
//! are the real ones; only the socket is not there.

#[path = "../fanout/gate.rs"]
mod gate;
#[path = "../fanout/open.rs"]
mod open;
mod world;

use gate::Gate;
use std::sync::Arc;
use world::{World, missing};

/// In `world`, so much waits for a client beside what is on its way to it.
const BOUND: usize = world::OUTBOX_BYTES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_dropped_never_ends_a_connection_whatever_else_waits() {
    let world = World::new(65_536);
    let mut client = world.subscribe(&["keep", "oldest", "latest"]).await;
    world.stall("oldest").await;
    // Nearly as much as may wait, on the channel that must lose nothing; and then far more on the others.
    for _ in 0..BOUND * 9 / 10 / 500 {
        world.publish(&["keep"], 450).await;
    }
    for _ in 0..200 {
        world.publish(&["oldest", "latest"], 450).await;
        world.settle().await;
        assert_eq!(world.ended_slow(), 0, "what waits on the channel that disconnects is within the bound");
    }
    let events = world.read_all(&mut client).await;
    assert!(missing(&events, "keep", &world).is_empty());
    world.hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_without_history_that_overflow_at_once_each_have_their_gap() {
    let world = World::new(65_536);
    let mut client = world.subscribe(&["live.a", "live.b"]).await;
    // More at once, for a client that keeps up, than the rings of the two hold.
    let both: Vec<_> = ["live.a", "live.b"].into_iter().cycle().take(120).collect();
    world.publish(&both, 450).await;
    world.settle().await;
    let events = world.read_all(&mut client).await;
    for channel in ["live.a", "live.b"] {
        let lost = missing(&events, channel, &world);
        let told = events.iter().filter(|event| event.is_gap && event.channel == channel).count();
        assert!(!lost.is_empty(), "{channel} lost nothing: the test shows nothing");
        assert_eq!(told, 1, "{channel} lost {} events", lost.len());
    }
    world.hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_back_is_read_from_history_once_that_is_read_anyway() {
    let world = Arc::new(World::new(16));
    let (mut client, mut gated) = (world.subscribe(&["oldest"]).await, world.subscribe(&["gate"]).await);
    world.stall("oldest").await;
    let dropped = || world.metrics.dropped_events.with_label_values(&["drop-oldest"]).get();
    while dropped() == 0 {
        world.publish(&["oldest"], 450).await;
        world.settle().await;
    }
    // The shard stands while more comes than its queue takes and the feed remembers.
    let (gate, release) = Gate::new();
    gate.before(&mut gated);
    let held = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.publish(&["gate"], 1).await })
    };
    while !gate.is_reached() {
        tokio::task::yield_now().await;
    }
    world.publish(&["oldest"; 60], 450).await;
    assert!(world.metrics.queue_overflows.get() > 0, "the queue was never full");
    release.send(()).expect("the shard stands");
    held.await.expect("published");
    // It has taken from the feed what there is to take, before the client makes room.
    world.settle().await;
    let events = world.read_to_last(&mut client, "oldest").await;
    let (lost, gaps) = (missing(&events, "oldest", &world), events.iter().filter(|event| event.is_gap).count());
    assert!(lost.is_empty() && gaps == 0, "{gaps} gaps, and lost {lost:?}");
    world.hub.stop();
}
