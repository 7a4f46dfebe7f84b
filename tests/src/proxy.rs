//! A TCP proxy whose connections a test can cut, stall and lead elsewhere: the network between two processes.
//!
//! Its socket buffers are small, so that who does not read is soon felt at the other end. Bytes are never lost on an
//! unbroken connection: a stall only delays them.

use crate::{ports, wait};
use rustix::net::sockopt;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};

const BUFFER_BYTES: usize = 16 * 1024;

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides are closed.
    Close,
    /// Both sides are reset; what was on its way is lost.
    Reset,
}

/// A running proxy; its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    open: Mutex<HashMap<u64, oneshot::Sender<Cut>>>,
    accepted: AtomicU64,
    stalled: watch::Sender<bool>,
    refusing: watch::Sender<bool>,
}

impl Proxy {
    /// Listens on a port of its own and connects to `upstream` for each connection.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(upstream: SocketAddr) -> Self {
        let address = ports::free();
        let listener = wait::until("the proxy listens", async || TcpListener::bind(address).await.ok()).await;
        // What is accepted inherits them.
        let _ = sockopt::set_socket_recv_buffer_size(&listener, BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(&listener, BUFFER_BYTES);
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            stalled: watch::Sender::new(false),
            refusing: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Connections that were ever made through it.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open().len()
    }

    /// Cuts each connection that is `chosen`; answers how many those were.
    pub fn cut(&self, how: Cut, mut chosen: impl FnMut() -> bool) -> usize {
        let mut open = self.shared.open();
        let mut ids: Vec<_> = open.keys().copied().collect();
        // The order of a map is chance; what is chosen should not be.
        ids.sort_unstable();
        ids.retain(|_| chosen());
        // One that has just ended by itself is not cut any more.
        ids.into_iter().filter_map(|id| open.remove(&id)).filter_map(|cut| cut.send(how).ok()).count()
    }

    /// Cuts all connections.
    pub fn cut_all(&self, how: Cut) -> usize {
        self.cut(how, || true)
    }

    /// Forwards nothing for this long, in either direction; answers how many connections that concerned.
    pub async fn stall(&self, time: Duration) -> usize {
        let count = self.shared.open().len();
        self.shared.stalled.send_replace(true);
        tokio::time::sleep(time).await;
        self.shared.stalled.send_replace(false);
        count
    }

    /// From now on, or no longer, connections are closed as soon as they are made, and those that are open are cut.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.send_replace(refusing);
        if refusing {
            self.cut_all(Cut::Reset);
        }
    }

    /// Leads new connections to another place; those that are open stay.
    pub fn lead(&self, upstream: SocketAddr) {
        *self.shared.upstream() = upstream;
    }

    /// Leads new connections to another place, and cuts those that are open.
    pub fn switch(&self, upstream: SocketAddr) {
        self.lead(upstream);
        self.cut_all(Cut::Close);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_all(Cut::Reset);
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Cut>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upstream(&self) -> MutexGuard<'_, SocketAddr> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *shared.refusing.borrow() {
            let _ = client.set_zero_linger();
            continue;
        }
        let id = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let (cut, is_cut) = oneshot::channel();
        shared.open().insert(id, cut);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = forward(client, &shared, is_cut).await;
            shared.open().remove(&id);
        });
    }
}

async fn forward(client: TcpStream, shared: &Shared, is_cut: oneshot::Receiver<Cut>) -> io::Result<()> {
    let upstream = *shared.upstream();
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        // As if nobody listened there.
        return client.set_zero_linger();
    };
    let mut client = client;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let _ = sockopt::set_socket_recv_buffer_size(&server, BUFFER_BYTES);
    let cut = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = pump(from_client, to_server, shared.stalled.subscribe());
        let down = pump(from_server, to_client, shared.stalled.subscribe());
        tokio::select! {
            // A half that ended passes its end on; the other goes on until it ends too.
            _ = async { tokio::join!(up, down) } => None,
            cut = is_cut => cut.ok(),
        }
    };
    if cut == Some(Cut::Reset) {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut stalled: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(count) => count,
            Err(error) => {
                to.shutdown().await?;
                return Err(error);
            }
        };
        // Its sender goes with the proxy, and all connections with it.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
