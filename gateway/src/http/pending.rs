//! Connections that wait for their clients: for a first request, for the rest of one, or for the next.
//!
//! They cost their clients nothing, so that one client could have all the descriptors there are. Of more than so many, the
//! one that has waited longest is closed for the next; a connection with a stream, or with a request that is being
//! answered, never is. Of the two kinds, those that owe the rest of a request and those that may send another, it is the
//! larger that has to give: whoever comes with a request meanwhile is in neither for long.
//!
//! Nobody is closed before a moment has passed. While all have just come, the next wait in the backlog, so that a crowd is
//! let in as fast as its requests are read.

use crate::metrics::Metrics;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// What a client with a slow line may need for a handshake and a request.
const A_MOMENT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It owes a request, or the rest of one.
    Unfinished,
    /// It has been answered and may send another.
    Idle,
}

/// See the module's documentation.
pub(super) struct Pending {
    this: Weak<Self>,
    most: usize,
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
    left: Notify,
}

/// In the order in which they began to wait.
#[derive(Default)]
struct Waiting {
    next: u64,
    unfinished: BTreeMap<u64, Waiter>,
    idle: BTreeMap<u64, Waiter>,
}

struct Waiter {
    since: Instant,
    wanted: Arc<Notify>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.unfinished.len() + self.idle.len()
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeMap<u64, Waiter> {
        match kind {
            Kind::Unfinished => &mut self.unfinished,
            Kind::Idle => &mut self.idle,
        }
    }
}

impl Pending {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            most,
            metrics,
            waiting: Mutex::default(),
            left: Notify::new(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more connection may be taken in.
    pub(super) async fn room(&self) {
        loop {
            if self.waiting().len() < self.most {
                return;
            }
            let Some(wait) = self.close_oldest() else { return };
            tokio::select! {
                () = self.left.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Closes the connection of the larger kind that has waited longest; or answers how long it is too early for that.
    pub(super) fn close_oldest(&self) -> Option<Duration> {
        let mut waiting = self.waiting();
        let kind = if waiting.unfinished.len() >= waiting.idle.len() { Kind::Unfinished } else { Kind::Idle };
        let oldest = waiting.of(kind).first_entry()?;
        let early = A_MOMENT.saturating_sub(oldest.get().since.elapsed());
        if !early.is_zero() {
            return Some(early);
        }
        oldest.remove().wanted.notify_one();
        self.metrics.connections_pending.dec();
        self.metrics.refused.with_label_values(&["pending"]).inc();
        None
    }

    /// Connections that owe a request, or the rest of one.
    pub(super) fn unfinished(&self) -> usize {
        self.waiting().unfinished.len()
    }

    /// A connection has come.
    pub(super) fn enter(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            pending: Weak::clone(&self.this),
            wanted: Arc::default(),
            state: Mutex::new(State { fresh: true, since: Instant::now(), requests: 0, owing: 0, place: None }),
        });
        seat.change(|_| {});
        seat
    }

    fn wait(&self, kind: Kind, wanted: &Arc<Notify>) -> u64 {
        let mut waiting = self.waiting();
        waiting.next += 1;
        let place = waiting.next;
        waiting.of(kind).insert(place, Waiter { since: Instant::now(), wanted: Arc::clone(wanted) });
        self.metrics.connections_pending.inc();
        place
    }

    fn leave(&self, kind: Kind, place: u64) {
        if self.waiting().of(kind).remove(&place).is_some() {
            self.metrics.connections_pending.dec();
            self.left.notify_one();
        }
    }
}

/// One connection's part in [`Pending`], until it is dropped.
pub(super) struct Seat {
    pending: Weak<Pending>,
    wanted: Arc<Notify>,
    state: Mutex<State>,
}

struct State {
    /// No request has come at all.
    fresh: bool,
    /// Since when nothing is answered, or owed by the gateway.
    since: Instant,
    /// Requests that have come and are not answered.
    requests: usize,
    /// Those of them whose bodies have not come.
    owing: usize,
    place: Option<(Kind, u64)>,
}

impl State {
    /// Whether it is the client's turn, and nobody else's.
    fn waits(&self) -> bool {
        self.requests == self.owing
    }
}

impl Seat {
    /// Completes when the connection is to be closed for another.
    pub(super) async fn wanted(&self) {
        loop {
            self.wanted.notified().await;
            // A request may have come at that very moment.
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).waits() {
                return;
            }
        }
    }

    /// Answers `fresh` once no request has come for so long, or `idle` once no further one has.
    pub(super) async fn waited<T>(&self, (head, fresh): (Duration, T), (between, idle): (Duration, T)) -> T {
        loop {
            let pause = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let limit = if state.fresh { head } else { between };
                match limit.checked_sub(state.since.elapsed()) {
                    _ if !state.waits() => limit,
                    Some(left) if !left.is_zero() => left,
                    _ => return if state.fresh { fresh } else { idle },
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// A request has come.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.change(|state| {
            state.fresh = false;
            state.requests += 1;
        });
        Busy(Arc::clone(self))
    }

    /// The rest of a request has not come.
    pub(super) fn waiting(self: &Arc<Self>) -> Owing {
        self.change(|state| state.owing += 1);
        Owing(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let Some(pending) = self.pending.upgrade() else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if let Some((kind, place)) = state.place.take() {
            pending.leave(kind, place);
        }
        if state.waits() {
            state.since = Instant::now();
            let kind = if state.fresh || state.owing > 0 { Kind::Unfinished } else { Kind::Idle };
            state.place = Some((kind, pending.wait(kind, &self.wanted)));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some((kind, place)), Some(pending)) = (state.place.take(), self.pending.upgrade()) {
            pending.leave(kind, place);
        }
    }
}

/// A request that is being answered, until it is dropped.
pub(super) struct Busy(Arc<Seat>);

impl Busy {
    /// Until hyper has taken the answer's body.
    pub(super) fn until_written<B>(self, body: B) -> Seated<B> {
        Seated { body, _busy: self }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|state| state.requests -= 1);
    }
}

/// A request whose body has not come, until it is dropped.
pub(super) struct Owing(Arc<Seat>);

impl Drop for Owing {
    fn drop(&mut self) {
        self.0.change(|state| state.owing -= 1);
    }
}

/// A body with the request that it answers.
pub(super) struct Seated<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Seated<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(most: usize) -> Arc<Pending> {
        Pending::new(most, Arc::new(Metrics::new()))
    }

    fn age(pending: &Pending) {
        let mut waiting = pending.waiting();
        let Waiting { unfinished, idle, .. } = &mut *waiting;
        for waiter in unfinished.values_mut().chain(idle.values_mut()) {
            waiter.since -= A_MOMENT;
        }
    }

    async fn is_wanted(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::from_millis(1), seat.wanted()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_of_the_larger_kind_gives_way_and_who_is_answered_never_does() {
        let pending = pending(3);
        let (stream, idle) = (pending.enter(), pending.enter());
        let _busy = stream.busy();
        drop(idle.busy());
        let (first, second) = (pending.enter(), pending.enter());
        assert!(pending.close_oldest().is_some(), "too early");
        age(&pending);
        pending.room().await;
        assert!(is_wanted(&first).await);
        for seat in [&stream, &idle, &second] {
            assert!(!is_wanted(seat).await);
        }
        drop((first, second, idle, stream));
    }

    #[tokio::test]
    async fn idle_connections_do_not_drive_out_those_who_come() {
        let pending = pending(3);
        let idle = [pending.enter(), pending.enter()];
        idle.iter().for_each(|seat| drop(seat.busy()));
        let came = pending.enter();
        age(&pending);
        pending.room().await;
        assert!(is_wanted(&idle[0]).await && !is_wanted(&came).await);
    }

    #[tokio::test]
    async fn whatever_happens_the_count_is_right_in_the_end() {
        let pending = pending(10);
        let seat = pending.enter();
        let count = || {
            let waiting = pending.waiting();
            (waiting.unfinished.len(), waiting.idle.len())
        };
        assert_eq!(count(), (1, 0));
        let (one, two) = (seat.busy(), seat.busy());
        assert_eq!(count(), (0, 0));
        let body = seat.waiting();
        assert_eq!(count(), (0, 0), "another request is being answered");
        drop(two);
        assert_eq!(count(), (1, 0), "all that there is owes its body");
        let (three, another) = (seat.busy(), seat.waiting());
        drop(body);
        assert_eq!(count(), (0, 0), "one body is there");
        drop(one);
        assert_eq!(count(), (1, 0), "the other is owed still");
        drop(another);
        drop(three);
        assert_eq!(count(), (0, 1));
        drop(seat);
        assert_eq!((count(), pending.metrics.connections_pending.get()), ((0, 0), 0));
    }
}
