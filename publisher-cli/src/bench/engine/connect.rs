//! Opening streams: at a rate, or as fast as a bounded number of pending ones allows.

use super::{
    super::{probe, target::write_header, template::Values},
    Ended, Engine, Role, Stage, StreamTarget,
};
use mio::{Interest, Token, net::TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// So many may be on their way at a time: a listener's backlog is often 511, and an overflow costs a second.
const MAX_PENDING: usize = 256;
/// An address of its own for each so many connections: the usual range of local ports has 28,232, and finding a free one
/// gets slow when most are taken.
const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// How far the opening is.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) next: usize,
    pub(super) pending: usize,
    /// When the latest stream was open.
    pub(super) latest: u64,
    /// When it began, and with which stream.
    began: u64,
    first: usize,
    /// Streams get their connections only, and are asked for later, all at once.
    holds: bool,
    held: Vec<usize>,
}

/// The local addresses that the streams' connections come from, in turn.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Sources {
    addresses: Vec<IpAddr>,
}

impl Sources {
    /// The given ones; without any, so many of the loopback as they need if that is where they go: other ones in
    /// each run, since the ports of the streams of the run before are taken for another minute.
    pub(in crate::bench) fn new(given: &[IpAddr], target: SocketAddr, connections: usize) -> Self {
        let needed = connections.div_ceil(CONNECTIONS_PER_SOURCE);
        let addresses = match target.ip() {
            _ if !given.is_empty() => given.to_vec(),
            IpAddr::V4(ip) if ip.is_loopback() => {
                let (second, third) = (fastrand::u8(1..=254), fastrand::u8(..));
                (1..=needed.min(250)).map(|last| IpAddr::V4(Ipv4Addr::new(127, second, third, last as u8))).collect()
            }
            _ => Vec::new(),
        };
        Self { addresses }
    }

    /// Where the connection of this number comes from, if that is not left to the system.
    pub(in crate::bench) fn of(&self, connection: usize) -> Option<SocketAddr> {
        let address = self.addresses.get(connection.checked_rem(self.addresses.len())?)?;
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
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl StreamTarget {
    /// Appends the request for a stream of the channel whose name in a URL this is.
    fn write_request(&self, channel: &str, number: usize, resume_from: Option<&[u8]>, into: &mut Vec<u8>) {
        self.target.begin("GET", Values { channel, number, data: b"" }, into);
        for (name, value) in &self.headers {
            write_header(name.as_str(), value.as_bytes(), into);
        }
        if let Some(id) = resume_from {
            write_header("last-event-id", id, into);
        }
        into.extend_from_slice(b"\r\n");
    }
}

impl Engine {
    /// The id that a client of the channel would come back with now.
    ///
    /// # Errors
    /// As [`probe::first_id`].
    pub(in crate::bench) fn first_id(&self, channel: u32) -> Result<String, String> {
        let name = &self.names[channel as usize];
        let mut bytes = Vec::new();
        self.target.write_request(&name.in_url, 0, None, &mut bytes);
        let stream = probe::Request { address: self.target.address, bytes };
        let event =
            probe::Request { address: self.publishers.address(), bytes: self.publishers.request(name, b"probe") };
        probe::first_id(&stream, &event)
    }

    /// Begins to open the streams that were added since the last time.
    pub(in crate::bench) fn begin_opening(&mut self) {
        self.opening.began = self.now();
        self.opening.first = self.opening.next;
    }

    /// Begins to connect the streams that were added since the last time, and to hold their requests back.
    pub(in crate::bench) fn begin_connecting(&mut self) {
        self.begin_opening();
        self.opening.holds = true;
    }

    /// Sends all requests that were held back.
    pub(in crate::bench) fn ask_for_all(&mut self) {
        self.opening.holds = false;
        for index in std::mem::take(&mut self.opening.held) {
            if self.streams[index].stage == Stage::Held {
                self.streams[index].stage = Stage::Connecting;
                self.opening.pending += 1;
                if let Err(reason) = self.ask(index) {
                    self.ended(index, &reason);
                }
            }
        }
    }

    /// Whether all streams are open, or held back, or have failed.
    pub(in crate::bench) fn is_opened(&self) -> bool {
        self.opening.next == self.streams.len() && self.opening.pending == 0
    }

    /// When the latest stream was open.
    pub(in crate::bench) fn latest_opening(&self) -> u64 {
        self.opening.latest
    }

    /// Opens what may be opened now, and gives the time when more may; never if that depends on what comes.
    pub(super) fn open_due(&mut self) -> io::Result<u64> {
        while self.opening.next < self.streams.len() && self.opening.pending < MAX_PENDING {
            if self.target.connect_rate > 0.0 {
                let done = (self.opening.next - self.opening.first) as f64;
                let due = self.opening.began.saturating_add((done / self.target.connect_rate * 1e9) as u64);
                if due > self.now() {
                    return Ok(due);
                }
            }
            let index = self.opening.next;
            self.opening.next += 1;
            self.opening.pending += 1;
            self.open(index)?;
        }
        Ok(u64::MAX)
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let stream = &mut self.streams[index];
        stream.stage = Stage::Connecting;
        if let Some(http2) = &self.http2 {
            let name = &self.names[stream.reader.channel() as usize];
            let url = self.target.target.url(Values { channel: &name.in_url, number: index, data: b"" });
            return http2.open(index as u32, url, stream.role == Role::Stall);
        }
        let mut socket = start_connect(self.target.address, self.target.sources.of(index))?;
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        stream.socket = Some(socket);
        Ok(())
    }

    /// What a stream's connection that is there is for.
    pub(super) fn connected(&mut self, index: usize) -> Result<(), Ended> {
        if !self.opening.holds {
            return self.ask(index);
        }
        self.streams[index].stage = Stage::Held;
        self.opening.pending -= 1;
        self.opening.held.push(index);
        Ok(())
    }

    /// Sends a stream's request, once its connection is there.
    fn ask(&mut self, index: usize) -> Result<(), Ended> {
        let stream = &mut self.streams[index];
        let Some(socket) = &mut stream.socket else { return Ok(()) };
        if let Ok(Some(error)) | Err(error) = socket.take_error() {
            return Err(Ended::Socket(error.kind()));
        }
        self.request.clear();
        let name = &self.names[stream.reader.channel() as usize];
        let resume_from = (stream.role == Role::Resume).then_some(&self.resume_from[..]);
        self.target.write_request(&name.in_url, index, resume_from, &mut self.request);
        let request = &self.request[..];
        match rustix::io::write(&*socket, request) {
            Ok(sent) if sent == request.len() => {}
            // A new socket's buffer has room for any request that a server would read.
            Ok(_) => return Err(Ended::Socket(io::ErrorKind::WriteZero)),
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(Ended::Socket(error.kind())),
        }
        stream.stage = Stage::Asked;
        if stream.role == Role::Stall {
            self.poll.registry().deregister(socket).map_err(|error| Ended::Socket(error.kind()))?;
            self.opened(index);
        }
        Ok(())
    }
}
