//! A reader that holds its shard up.

use hyper::body::Body;
use sluice_gateway::sse::outbox::OutboxBody;
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
};

/// Holds the shard up as soon as it gives this reader something, until it is let go: whoever publishes may serve the shard,
/// and is then held up with it.
pub(crate) struct Gate {
    reached: AtomicBool,
    released: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.reached.store(true, Ordering::SeqCst);
        // An error is a test that failed and let go of its end.
        let _ = self.released.lock().expect("not poisoned").recv();
    }
}

impl Gate {
    /// With what opens it.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel();
        (Arc::new(Self { reached: AtomicBool::new(false), released: Mutex::new(released) }), release)
    }

    /// Stands before what comes next for this reader, of which nothing is here yet.
    pub(crate) fn before(self: &Arc<Self>, reader: &mut OutboxBody) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        while Pin::new(&mut *reader).poll_frame(&mut context).is_ready() {}
    }

    /// Whether the shard stands at it.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }
}
