//! Many subscribers of one shard: nobody is left out of a pass that takes several turns, and nobody waits for one.

mod crowd;
mod gate;

use crowd::{Crowd, take};
use gate::Gate;
use sluice_gateway::sse::outbox::OutboxBody;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

const MANY: usize = 3_000;

/// Notes the place of a subscriber among all who are given something.
#[derive(Default)]
struct Turn {
    count: Arc<AtomicUsize>,
    place: AtomicUsize,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.place.store(self.count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_with_one_subscriber_does_not_wait_for_one_with_thousands() {
    let crowd = Arc::new(Crowd::new());
    let mut many = Vec::new();
    for _ in 0..MANY {
        many.push(crowd.subscribe("many").await);
    }
    let mut one = crowd.subscribe("one").await;
    let mut gated = crowd.subscribe("gate").await;
    let count = Arc::new(AtomicUsize::new(0));
    let turn = || Arc::new(Turn { count: Arc::clone(&count), ..Turn::default() });
    for body in &mut many {
        let waker = Waker::from(turn());
        assert!(take(body, &mut Context::from_waker(&waker)).is_none());
    }
    let noted = turn();
    let waker = Waker::from(Arc::clone(&noted));
    assert!(take(&mut one, &mut Context::from_waker(&waker)).is_none());

    let (gate, release) = Gate::new();
    gate.before(&mut gated);

    // Both events are there before the shard goes on, in the order that is worse for the one. Whoever publishes may serve
    // the shard, and is then held up with it.
    let holds_up = Arc::clone(&crowd);
    let held = tokio::spawn(async move { holds_up.publish(&["gate"], b"stop here").await });
    until("the shard stands", || gate.is_reached()).await;
    crowd.publish(&["many", "one"], b"to both").await;
    release.send(()).expect("the shard stands");
    held.await.expect("published");
    until("everybody is given it", || count.load(Ordering::SeqCst) == MANY + 1).await;
    let place = noted.place.load(Ordering::SeqCst);
    assert!(place < MANY / 2, "{place} of {MANY}");
    crowd.hub.stop();
}

/// Has another subscriber leave as soon as this one is given something.
struct Leaving(Mutex<Option<OutboxBody>>);

impl Wake for Leaving {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().expect("not poisoned").take());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_stay_get_the_event_when_others_leave_in_the_middle_of_a_pass() {
    let crowd = Crowd::new();
    let mut bodies = Vec::new();
    for _ in 0..MANY {
        bodies.push(crowd.subscribe("many").await);
    }
    // They are among the first to be served: the last ones, who have not been, are moved to their places.
    let leaving: Vec<_> = bodies.drain(100..200).collect();
    for (body, leaves) in bodies.iter_mut().zip(leaving) {
        let waker = Waker::from(Arc::new(Leaving(Mutex::new(Some(leaves)))));
        assert!(take(body, &mut Context::from_waker(&waker)).is_none());
    }
    crowd.publish(&["many"], b"x").await;
    let mut missing = bodies;
    until("everybody who stayed has the event", || {
        missing.retain_mut(|body| take(body, &mut Context::from_waker(Waker::noop())).is_none());
        missing.is_empty()
    })
    .await;
    crowd.hub.stop();
}
