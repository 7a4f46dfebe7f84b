//! A reader that holds its shard up.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
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

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Whether the shard stands at it.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }
}
