//! `sluice bench floor`: the least that a server can do, to compare with.
//!
//! Every GET is a stream; every other request is an event, whose bytes are made once and handed to every stream by one
//! bare system call. There are no channels, no queues and no checks: a stream that cannot take a whole event is dropped
//! and counted. The loop over the streams touches a dense array of descriptors and nothing else.

use super::limits;
use crate::{
    args::FloorArgs,
    exit::Failure,
    output::{self, Output},
};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use rustix::{fd::OwnedFd, io::Errno, net::SendFlags};
use slab::Slab;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::signal::unix::{SignalKind, signal};

const LISTENER: Token = Token(usize::MAX);
const MAX_REQUEST_BYTES: usize = 16 << 20;
const MAX_HEADERS: usize = 64;
const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n: welcome\n\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Runs the command, until it is told to stop.
///
/// # Errors
/// When the address cannot be listened on.
pub(super) async fn run(args: &FloorArgs) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("cannot serve on {}: {error}", args.listen));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let dropped = Arc::new(AtomicU64::new(0));
    let mut floor = Floor::bind(args, Arc::clone(&dropped)).map_err(failed)?;
    let address = floor.listener.local_addr().map_err(failed)?;
    let serving = tokio::task::spawn_blocking(move || floor.serve());
    Output::new().write(format!("http://{address}\n").as_bytes()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        served = serving => served.map_err(io::Error::other).flatten().map_err(failed)?,
    }
    output::say(&format!("{} streams were dropped", dropped.load(Ordering::Relaxed)));
    Ok(())
}

/// How bytes are handed to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Call {
    /// write(), as most servers do; it goes through the layer of files
    Write,
    /// send(), which does not and costs some 5 to 8 % less
    Send,
}

impl Call {
    fn hand(self, stream: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Write => rustix::io::write(stream, bytes),
            Self::Send => rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        }
    }
}

/// A connection whose request is being read.
#[derive(Debug)]
struct Asking {
    socket: TcpStream,
    bytes: Vec<u8>,
}

/// What the bytes of a connection amount to.
enum Request {
    Incomplete,
    Stream,
    /// An event, which is here in the bytes; the request ends where it does.
    Event(std::ops::Range<usize>),
    Malformed,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    asking: Slab<Asking>,
    streams: Vec<OwnedFd>,
    call: Call,
    dropped: Arc<AtomicU64>,
    next_id: u64,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

impl Floor {
    fn bind(args: &FloorArgs, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        limits::raise_open_files();
        let poll = Poll::new()?;
        let socket = socket2::Socket::new(socket2::Domain::for_address(args.listen), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&args.listen.into())?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            asking: Slab::new(),
            streams: Vec::new(),
            call: args.call,
            dropped,
            next_id: 0,
            frame: Vec::new(),
            buffer: vec![0; 64 * 1024],
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) => self.read(index),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let entry = self.asking.vacant_entry();
            self.poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE)?;
            entry.insert(Asking { socket, bytes: Vec::new() });
        }
    }

    fn read(&mut self, index: usize) {
        loop {
            let Some(asking) = self.asking.get_mut(index) else { return };
            let count = match rustix::io::read(&asking.socket, &mut self.buffer[..]) {
                Ok(count) if count > 0 => count,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => return drop(self.asking.try_remove(index)),
            };
            asking.bytes.extend_from_slice(&self.buffer[..count]);
            self.answer(index);
        }
    }

    /// Answers the requests that are complete.
    fn answer(&mut self, index: usize) {
        while let Some(asking) = self.asking.get_mut(index) {
            match request(&asking.bytes) {
                Request::Incomplete => return,
                Request::Stream => return self.open(index),
                Request::Event(data) => {
                    // Answered before it is delivered, as servers do.
                    let answered = rustix::io::write(&asking.socket, ACCEPTED);
                    let end = data.end;
                    frame(&asking.bytes[data], self.next_id, &mut self.frame);
                    asking.bytes.drain(..end);
                    if answered.is_err() {
                        self.asking.try_remove(index);
                    }
                    self.deliver();
                }
                Request::Malformed => {
                    // Whoever sent it may be gone.
                    let _ = rustix::io::write(&asking.socket, BAD_REQUEST);
                    self.asking.try_remove(index);
                }
            }
        }
    }

    fn open(&mut self, index: usize) {
        let Some(mut asking) = self.asking.try_remove(index) else { return };
        let is_open = self.poll.registry().deregister(&mut asking.socket).is_ok()
            && rustix::io::write(&asking.socket, STREAM_HEAD) == Ok(STREAM_HEAD.len());
        if is_open {
            self.streams.push(std::net::TcpStream::from(asking.socket).into());
        }
    }

    fn deliver(&mut self) {
        self.next_id += 1;
        let (frame, call, before) = (&self.frame, self.call, self.streams.len());
        self.streams.retain(|stream| call.hand(stream, frame) == Ok(frame.len()));
        self.dropped.fetch_add((before - self.streams.len()) as u64, Ordering::Relaxed);
    }
}

fn frame(data: &[u8], id: u64, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(format!("id: {id}\n").as_bytes());
    for line in data.split(|&byte| byte == b'\n') {
        into.extend_from_slice(b"data: ");
        into.extend_from_slice(line);
        into.push(b'\n');
    }
    into.push(b'\n');
}

fn request(bytes: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST_BYTES => return Request::Incomplete,
        _ => return Request::Malformed,
    };
    if parsed.method == Some("GET") {
        return Request::Stream;
    }
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    match length {
        Some(length) if length > MAX_REQUEST_BYTES => Request::Malformed,
        Some(length) if bytes.len() < head + length => Request::Incomplete,
        Some(length) => Request::Event(head..head + length),
        None => Request::Malformed,
    }
}
