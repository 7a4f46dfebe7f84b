//! Exact resume with a broker that does everything a broker may do: it cuts subscriptions, loses announcements, is slow
//! to answer, and fails. The hub, its shards and its threads are the real ones; only the sockets are not there. Clients
//! have their streams plain, with gzip or with zstd, as it falls.
//!
//! Every run has a seed, printed when it fails; the threads' timing is not part of it.

mod flaky;
#[path = "../fanout/gate.rs"]
mod gate;
#[path = "../fanout/open.rs"]
mod open;
#[path = "../../src/sse/compress/testing.rs"]
mod reader;
mod world;

use gate::Gate;
use sluice_gateway::{
    broker::{Broker, Publish},
    event::Event,
    position::Position,
    sse::cursor::CursorWriter,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use world::{Seen, World, read_until};

async fn storm(seed: u64, shards: usize, queue_events: usize) {
    fastrand::seed(seed);
    let world = World::new(shards, queue_events);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mine: BTreeSet<_> = (0..fastrand::usize(1..4)).map(|_| fastrand::usize(..6)).collect();
            let mine: Vec<_> = mine.into_iter().collect();
            (mine.clone(), tokio::spawn(Arc::clone(&world).client(mine)))
        })
        .collect();
    let cuts = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(50..400))).await;
                world.broker.cut().await;
            }
        })
    };
    for _ in 0..3000 {
        world.publish(fastrand::usize(..6)).await;
        if fastrand::u32(..3) == 0 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..4))).await;
        }
    }
    cuts.abort();
    let _ = cuts.await;
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    // In case the last cut was ended by the abort: the link comes back.
    world.broker.cut().await;
    for nth in 0..6 {
        world.publish(nth).await;
    }
    world.ending.store(true, Ordering::SeqCst);
    for (mine, client) in clients {
        let seen = client.await.expect("the client ran");
        assert!(seen.gaps.is_empty(), "seed {seed}: gaps without a loss: {:?}", seen.gaps);
        let all = mine.clone();
        for nth in mine {
            let (channel, last) = (world.channels[nth].as_str(), world.published[nth].load(Ordering::SeqCst));
            assert!(
                seen.is_whole(channel, last),
                "seed {seed}: {channel} of {all:?} up to {last}: {}",
                seen.breaks(channel)
            );
        }
    }
    let hub = Arc::clone(&world.hub);
    tokio::task::spawn_blocking(move || hub.stop()).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_broker_does_every_client_sees_every_event_once_and_in_order() {
    let seed =
        std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    for (nth, shards) in [1, 2].into_iter().enumerate() {
        storm(seed.wrapping_add(nth as u64), shards, 65_536).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_shard_queue_is_repaired_without_waiting_for_another_event() {
    let world = World::new(1, 16);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut bodies = Vec::new();
    for _ in 0..20 {
        bodies.push(world.connect(&[0, 1], None).await.expect("let in"));
    }
    for round in 1..=40 {
        // More at once than the queue takes, and then silence.
        let batch = |nth: usize| {
            let number = world.published[nth].fetch_add(1, Ordering::SeqCst) + 1;
            let event = Event::new(None, format!("{} {number}", world.channels[nth]).into()).expect("valid");
            Publish { channel: world.channels[nth].clone(), event, idempotency_key: None }
        };
        world.broker.publish((0..50).map(|n| batch(n % 2)).collect()).await;
        if round % 8 == 0 {
            let mut seen = Seen::default();
            read_until(&mut bodies.remove(0), &mut seen, |seen| {
                seen.is_whole("c0", round * 25) && seen.is_whole("c1", round * 25)
            })
            .await;
            assert!(seen.gaps.is_empty());
        }
    }
    assert!(world.metrics.queue_overflows.get() > 0, "the queue was never full");
}

/// Runs until `done`, or fails.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_history_is_one_gap_for_each_who_had_seen_it_and_nothing_is_missed_afterwards() {
    let world = World::new(2, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut staying = world.connect(&[0, 1], None).await.expect("let in");
    let mut leaving = world.connect(&[0], None).await.expect("let in");
    for _ in 0..30 {
        world.publish(0).await;
        world.publish(1).await;
    }
    let (mut stayed, mut left) = (Seen::default(), Seen::default());
    read_until(&mut staying, &mut stayed, |seen| seen.is_whole("c0", 30) && seen.is_whole("c1", 30)).await;
    read_until(&mut leaving, &mut left, |seen| seen.is_whole("c0", 30)).await;
    drop(leaving);

    world.broker.wipe().await;
    for _ in 0..20 {
        world.publish(0).await;
    }
    read_until(&mut staying, &mut stayed, |seen| seen.gaps.len() == 2 && seen.is_whole("c0", 50)).await;
    // Who was away during the loss, and reads what was published since.
    let mut back = world.connect(&[0], left.id.as_deref()).await.expect("let in");
    read_until(&mut back, &mut left, |seen| seen.is_whole("c0", 50) && !seen.gaps.is_empty()).await;
    // And who never saw the lost history hears of no loss beyond the mark that it crosses live.
    let mut fresh = world.connect(&[0], None).await.expect("let in");
    for _ in 0..10 {
        world.publish(0).await;
    }
    let mut new = Seen::default();
    read_until(&mut fresh, &mut new, |seen| seen.is_whole("c0", 60)).await;
    read_until(&mut staying, &mut stayed, |seen| seen.is_whole("c0", 60)).await;
    read_until(&mut back, &mut left, |seen| seen.is_whole("c0", 60)).await;
    assert_eq!((stayed.gaps.len(), left.gaps.len(), new.gaps.len()), (2, 1, 0), "{stayed:?} {left:?} {new:?}");
    assert!(left.gaps[0].contains("\"reset\"") && left.gaps[0].contains("\"c0\""), "{:?}", left.gaps);

    // A resume right after the gap does not tell of it again.
    let mut again = world.connect(&[0], left.id.as_deref()).await.expect("let in");
    world.publish(0).await;
    read_until(&mut again, &mut left, |seen| seen.is_whole("c0", 61)).await;
    assert_eq!(left.gaps.len(), 1);
    until("all connections are counted out", || world.hub.connections() == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_ahead_of_its_replica_gets_nothing_up_to_where_it_stands_and_no_gap() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut live = world.connect(&[0], None).await.expect("let in");
    for _ in 0..5 {
        world.publish(0).await;
    }
    let mut behind = Seen::default();
    read_until(&mut live, &mut behind, |seen| seen.is_whole("c0", 5)).await;

    // This replica hears nothing of 6 to 10; the client got up to 8 from another one.
    world.broker.relay.cut.store(true, Ordering::SeqCst);
    let mut places = Vec::new();
    for _ in 6..=10 {
        places.push(world.publish(0).await);
    }
    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], places[2], false);
    let mut ahead = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut ahead, &mut seen, |seen| seen.is_whole("c0", 10)).await;
    // Then it catches up, and passes on what the client has had.
    world.broker.cut().await;
    world.publish(0).await;
    read_until(&mut ahead, &mut seen, |seen| seen.is_whole("c0", 11)).await;
    read_until(&mut live, &mut behind, |seen| seen.is_whole("c0", 11)).await;
    assert_eq!((seen.numbers["c0"].as_slice(), seen.gaps.len()), (&[9, 10, 11][..], 0));
    assert_eq!(behind.gaps.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_ahead_of_a_shard_that_then_misses_more_misses_nothing() {
    let world = World::new(1, 16);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut live = world.connect(&[0], None).await.expect("let in");
    let mut gated = world.connect(&[1], None).await.expect("let in");
    world.publish(0).await;
    let mut behind = Seen::default();
    read_until(&mut live, &mut behind, |seen| seen.is_whole("c0", 1)).await;

    // This replica hears nothing of 2 to 40; the client has 2 from another, and is sent the rest from history.
    world.broker.relay.cut.store(true, Ordering::SeqCst);
    let second = world.publish(0).await;
    for _ in 3..=40 {
        world.publish(0).await;
    }
    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], second, false);
    let mut ahead = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut ahead, &mut seen, |seen| seen.is_whole("c0", 40)).await;
    world.broker.relay.cut.store(false, Ordering::SeqCst);

    // The shard stands while the feed finds what it missed, of which the queue takes a part, and while more comes than the
    // feed remembers.
    let (gate, release) = Gate::new();
    gate.before(&mut gated.body);
    let held = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.publish(1).await })
    };
    until("the shard stands", || gate.is_reached()).await;
    let reads = || world.metrics.history_read_seconds.get_sample_count();
    let before = reads();
    world.broker.cut().await;
    // Seven at a time.
    until("the feed has read them", || reads() >= before + 39_u64.div_ceil(7)).await;
    for _ in 41..=240 {
        world.publish(0).await;
    }
    assert!(world.metrics.queue_overflows.get() > 0, "the queue was never full");
    release.send(()).expect("the shard stands");
    held.await.expect("published");
    for (stream, seen) in [(&mut ahead, &mut seen), (&mut live, &mut behind)] {
        read_until(stream, seen, |seen| seen.numbers["c0"].last() == Some(&240)).await;
        assert!(seen.is_whole("c0", 240) && seen.gaps.is_empty(), "{} {:?}", seen.breaks("c0"), seen.gaps);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_found_however_much_came_after_it() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut common = world.publish(0).await;
    for _ in 2..=5 {
        common = world.publish(0).await;
    }
    world.broker.mark_fork(&world.channels[0], common).await.expect("written down");
    for _ in 6..=40 {
        world.publish(0).await;
    }
    let late = world.publish(0).await;
    // More than a page.
    for _ in 42..=405 {
        world.publish(0).await;
    }
    // Of the other line, and by its clock later than the first of this one: time alone would pass over these.
    let elsewhere = Position::new(late.micros, common.seq + 1);
    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], elsewhere, false);
    let mut back = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut back, &mut seen, |seen| seen.is_whole("c0", 405)).await;
    assert_eq!((seen.numbers["c0"][0], seen.gaps.len()), (6, 1), "{:?}", seen.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_cursors_hold_nobody_up() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut first = world.connect(&[0], None).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut first, &mut seen, |seen| seen.id.is_some()).await;
    drop(first);
    for _ in 0..300 {
        world.publish(0).await;
    }
    let mut made_up = Vec::new();
    for n in 1..=30 {
        let mut cursor = CursorWriter::default();
        cursor.add(&world.channels[0], Position::new(1_000_000 + n, 100 + n), false);
        made_up.push(world.connect(&[0], cursor.finish().as_deref()).await.expect("let in"));
    }
    // Someone with a real cursor, far back, has everything while the others are still in doubt.
    let begun = tokio::time::Instant::now();
    let mut real = world.connect(&[0], seen.id.as_deref()).await.expect("let in");
    read_until(&mut real, &mut seen, |seen| seen.is_whole("c0", 300)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "held up for {:?}", begun.elapsed());
    // And those are told together, each once.
    for mut body in made_up {
        let mut seen = Seen::default();
        read_until(&mut body, &mut seen, |seen| !seen.gaps.is_empty()).await;
        assert_eq!(seen.gaps.len(), 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "one after the other: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_forgotten_is_not_replayed_from_memory() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut live = world.connect(&[0], None).await.expect("let in");
    let mut seen = Seen::default();
    let early = world.publish(0).await;
    for _ in 0..4 {
        world.publish(0).await;
    }
    read_until(&mut live, &mut seen, |seen| seen.is_whole("c0", 5)).await;
    world.broker.forget(&world.channels[0]).await.expect("forgotten");
    world.hub.cluster().forget(&world.hub, &world.channels[0]).await.expect("told to all");

    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], early, false);
    let mut back = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    world.publish(0).await;
    let mut again = Seen::default();
    read_until(&mut back, &mut again, |seen| seen.numbers.contains_key("c0")).await;
    assert_eq!((again.numbers["c0"].as_slice(), again.gaps.len()), (&[6][..], 1), "{again:?}");
    // Who had seen everything notices nothing.
    read_until(&mut live, &mut seen, |seen| seen.is_whole("c0", 6)).await;
    assert_eq!(seen.gaps.len(), 0);
}

#[test]
fn the_checker_sees_what_is_lost_doubled_or_out_of_order() {
    let seen =
        |numbers: &[u64]| Seen { numbers: HashMap::from([("c0".to_owned(), numbers.to_vec())]), ..Seen::default() };
    assert!(seen(&[3, 4, 5]).is_whole("c0", 5));
    for broken in [&[3, 5][..], &[3, 4, 4, 5], &[4, 3, 5], &[3, 4], &[]] {
        assert!(!seen(broken).is_whole("c0", 5), "{broken:?}");
    }
}
