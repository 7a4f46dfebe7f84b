//! Opening streams: at a rate, or as fast as a bounded number of pending ones allows.

use super::{Ended, Engine};
use mio::{Interest, Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// So many may be on their way at a time: a listener's backlog is often 511, and an overflow costs a second.
const MAX_PENDING: usize = 256;
/// An address of its own for each so many streams: the usual range of local ports has 28,232, and finding a free one
/// gets slow when most are taken.
const STREAMS_PER_SOURCE: usize = 10_000;

/// How far the opening is.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) next: usize,
    pub(super) pending: usize,
    /// When it began, and with which stream.
    began: u64,
    first: usize,
}

/// The local addresses that streams come from.
#[derive(Debug)]
pub(in crate::bench) struct Sources {
    addresses: Vec<IpAddr>,
}

impl Sources {
    /// The given ones; without any, so many of the loopback as the streams need if that is where they go.
    pub(in crate::bench) fn new(given: &[IpAddr], target: SocketAddr, streams: usize) -> Self {
        let needed = streams.div_ceil(STREAMS_PER_SOURCE);
        let addresses = match target.ip() {
            _ if !given.is_empty() => given.to_vec(),
            IpAddr::V4(ip) if ip.is_loopback() && needed > 1 => {
                (1..=needed.min(250)).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8))).collect()
            }
            _ => Vec::new(),
        };
        Self { addresses }
    }

    fn of(&self, stream: usize) -> Option<SocketAddr> {
        let address = self.addresses.get(stream.checked_rem(self.addresses.len())?)?;
        Some(SocketAddr::new(*address, 0))
    }
}

pub(super) fn start_connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Engine {
    /// Begins to open the streams that were added since the last time.
    pub(in crate::bench) fn begin_opening(&mut self) {
        self.opening.began = self.now();
        self.opening.first = self.opening.next;
    }

    /// Whether all streams are open or have failed.
    pub(in crate::bench) fn is_opened(&self) -> bool {
        self.opening.next == self.streams.len() && self.opening.pending == 0
    }

    /// Opens what may be opened now, and gives the time when more may; never if that depends on what comes.
    pub(super) fn open_due(&mut self) -> io::Result<u64> {
        while self.opening.next < self.streams.len() && self.opening.pending < MAX_PENDING {
            if self.target.connect_rate > 0.0 {
                let done = (self.opening.next - self.opening.first) as f64;
                let due = self.opening.began + (done / self.target.connect_rate * 1e9) as u64;
                if due > self.now() {
                    return Ok(due);
                }
            }
            let index = self.opening.next;
            let mut socket = start_connect(self.target.address, self.target.sources.of(index))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest)?;
            self.streams[index].socket = Some(socket);
            self.opening.next += 1;
            self.opening.pending += 1;
        }
        Ok(u64::MAX)
    }

    /// Sends a stream's request, once its connection is there.
    pub(super) fn ask(&mut self, index: usize) -> Result<(), Ended> {
        let stream = &mut self.streams[index];
        let Some(socket) = &stream.socket else { return Ok(()) };
        if let Ok(Some(error)) | Err(error) = socket.take_error() {
            return Err(Ended::Socket(error.kind()));
        }
        let values = super::super::template::Values {
            channel: &self.names[stream.reader.channel() as usize],
            number: index,
            data: b"",
        };
        self.request.clear();
        self.target.target.begin("GET", values, &mut self.request);
        // As EventSource does: some servers know by it what is asked for. A given header comes after, and so beats it.
        self.request.extend_from_slice(b"accept: text/event-stream\r\n");
        self.target.headers.iter().for_each(|header| header.write(&mut self.request));
        self.request.extend_from_slice(b"\r\n");
        match rustix::io::write(socket, &self.request) {
            Ok(sent) if sent == self.request.len() => {}
            // A new socket's buffer has room for any request that a server would read.
            Ok(_) => return Err(Ended::Socket(io::ErrorKind::WriteZero)),
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(Ended::Socket(error.kind())),
        }
        if let Some(socket) = stream.socket.as_mut().filter(|_| stream.stalls) {
            self.poll.registry().deregister(socket).map_err(|error| Ended::Socket(error.kind()))?;
            self.counts.open += 1;
            self.opening.pending -= 1;
        }
        stream.asked = true;
        Ok(())
    }
}
