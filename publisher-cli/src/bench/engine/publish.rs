//! Publishing: the kept-alive connections that carry events, made when they are needed.

use super::{
    super::{
        latency::Latency,
        response::{Piece, Response},
        stamp::Stamp,
        target::write_header,
        template::Values,
    },
    Engine, FIRST_PUBLISHER, Name, PublishTarget,
    connect::start_connect,
    traffic::Pace,
};
use mio::{Interest, Token, event::Event, net::TcpStream};
use rustix::io::Errno;
use std::{io, mem, net::SocketAddr};

/// Connections that bursts do not use.
const RESERVED: usize = 2;

/// How publishing went.
#[derive(Debug)]
pub(in crate::bench) struct PublishFigures {
    pub(in crate::bench) accepted: u64,
    pub(in crate::bench) failed: u64,
    pub(in crate::bench) first_failure: Option<String>,
    /// From the request to its answer.
    pub(in crate::bench) answer: Latency,
    /// How late requests went out.
    pub(in crate::bench) lag: Latency,
}

#[derive(Debug)]
struct Publisher {
    socket: TcpStream,
    response: Response,
    held: Vec<u8>,
    status: Option<u16>,
    request: Vec<u8>,
    written: usize,
    /// The event on its way, and when it was sent.
    current: Option<(u32, u32, u64)>,
    closes: bool,
}

#[derive(Debug)]
pub(super) struct Publishers {
    target: PublishTarget,
    /// By token; `None` where there is no connection now.
    all: Vec<Option<Publisher>>,
    idle: Vec<usize>,
    free: Vec<usize>,
    pub(super) figures: PublishFigures,
    data: Vec<u8>,
}

impl Publishers {
    pub(super) fn new(target: PublishTarget) -> io::Result<Self> {
        let (answer, lag) = (Latency::new()?, Latency::new()?);
        let figures = PublishFigures { accepted: 0, failed: 0, first_failure: None, answer, lag };
        let (all, idle, free, data) = Default::default();
        Ok(Self { target, all, idle, free, figures, data })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// The request that publishes this to a channel.
    pub(super) fn request(&self, channel: &Name, data: &[u8]) -> Vec<u8> {
        let PublishTarget { target, method, headers, body, .. } = &self.target;
        let values = Values { channel: &channel.plain, number: 0, data };
        let (mut content, mut request) = (Vec::with_capacity(2 * data.len()), Vec::with_capacity(2 * data.len() + 512));
        body.render(values, &mut content);
        target.begin(method, Values { channel: &channel.in_url, ..values }, &mut request);
        for (name, value) in headers {
            write_header(name.as_str(), value.as_bytes(), &mut request);
        }
        write_header("content-length", content.len().to_string().as_bytes(), &mut request);
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&content);
        request
    }

    /// Whether there is a connection for an event. Bursts leave some to the others, which would else be late.
    pub(super) fn can_send(&self, pace: Pace) -> bool {
        let reserved = if matches!(pace, Pace::Burst) { RESERVED.min(self.target.connections - 1) } else { 0 };
        let unmade = self.target.connections.saturating_sub(self.all.len());
        self.idle.len() + self.free.len() + unmade > reserved
    }
}

impl PublishFigures {
    /// Begins to count anew.
    pub(in crate::bench) fn clear(&mut self) {
        (self.accepted, self.failed, self.first_failure) = (0, 0, None);
        self.answer.clear();
        self.lag.clear();
    }
}

impl Engine {
    pub(super) fn publish(&mut self, channel: u32, due: u64, now: u64) -> io::Result<()> {
        let number = self.ledger.checker.sent(channel, now);
        let Publishers { target, data, figures, .. } = &mut self.publishers;
        figures.lag.record(now - due);
        data.clear();
        target.payload.write(&self.ledger.stamps, Stamp { channel, number, time: due }, data);
        let data = mem::take(&mut self.publishers.data);
        let request = self.publishers.request(&self.names[channel as usize], &data);
        self.publishers.data = data;
        let index = self.idle_publisher()?;
        if let Some(publisher) = &mut self.publishers.all[index] {
            publisher.request = request;
            publisher.written = 0;
            publisher.current = Some((channel, number, now));
        }
        self.write_request(index);
        Ok(())
    }

    fn idle_publisher(&mut self) -> io::Result<usize> {
        if let Some(index) = self.publishers.idle.pop() {
            return Ok(index);
        }
        let index = self.publishers.free.pop().unwrap_or(self.publishers.all.len());
        let mut socket = start_connect(self.publishers.target.address, None)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(FIRST_PUBLISHER + index), interest)?;
        let publisher = Publisher {
            socket,
            response: Response::START,
            held: Vec::new(),
            status: None,
            request: Vec::new(),
            written: 0,
            current: None,
            closes: false,
        };
        if index == self.publishers.all.len() {
            self.publishers.all.push(None);
        }
        self.publishers.all[index] = Some(publisher);
        Ok(index)
    }

    /// How many requests are on their way: whether the server took their events, nobody knows.
    pub(in crate::bench) fn unanswered(&self) -> u64 {
        let waiting = self.publishers.all.iter().flatten().filter(|publisher| publisher.current.is_some());
        waiting.count() as u64
    }

    pub(super) fn publisher_ready(&mut self, index: usize, event: &Event) -> io::Result<()> {
        if event.is_writable() {
            self.write_request(index);
        }
        if event.is_readable() || event.is_error() {
            self.read_answer(index);
        }
        Ok(())
    }

    fn write_request(&mut self, index: usize) {
        let Some(publisher) = &mut self.publishers.all[index] else { return };
        while publisher.written < publisher.request.len() {
            match rustix::io::write(&publisher.socket, &publisher.request[publisher.written..]) {
                Ok(count) => publisher.written += count,
                Err(Errno::INTR) => {}
                // Not connected yet looks like this as well, or like the next one.
                Err(Errno::AGAIN | Errno::NOTCONN) => return,
                Err(error) => return self.publisher_gone(index, &error.to_string()),
            }
        }
    }

    fn read_answer(&mut self, index: usize) {
        loop {
            let Some(publisher) = &mut self.publishers.all[index] else { return };
            let count = match rustix::io::read(&publisher.socket, &mut self.buffer[..]) {
                Ok(0) if publisher.status.is_some() && publisher.response.may_end_here() => {
                    publisher.closes = true;
                    self.answered(index);
                    return;
                }
                Ok(0) => return self.publisher_gone(index, "the server closed the connection"),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOTCONN) => return,
                Err(error) => return self.publisher_gone(index, &error.to_string()),
            };
            let mut bytes = &self.buffer[..count];
            let mut is_complete = false;
            loop {
                match publisher.response.next(&mut publisher.held, &mut bytes) {
                    Ok(Some(Piece::Head(head))) => {
                        publisher.status = Some(head.status);
                        publisher.closes |= head.closes;
                    }
                    Ok(Some(Piece::Body(_))) => {}
                    Ok(Some(Piece::End)) => is_complete = true,
                    Ok(None) => break,
                    Err(_) => return self.publisher_gone(index, "the answer is not HTTP/1.1"),
                }
            }
            if is_complete {
                self.answered(index);
            }
        }
    }

    /// An answer is complete: its event's fate is known, and the connection is free.
    fn answered(&mut self, index: usize) {
        let Some(publisher) = &mut self.publishers.all[index] else { return };
        let (status, closes) = (publisher.status.take().unwrap_or(0), publisher.closes);
        publisher.response = Response::START;
        let Some((channel, number, sent)) = publisher.current.take() else {
            // Nothing was asked: it says why it closes an idle connection.
            return self.publisher_gone(index, "an answer to nothing");
        };
        let now = self.clock.now();
        let figures = &mut self.publishers.figures;
        figures.answer.record(now - sent);
        if (200..300).contains(&status) {
            figures.accepted += 1;
            self.ledger.checker.accepted(channel, number, now, status != 202);
        } else {
            figures.failed += 1;
            figures.first_failure.get_or_insert_with(|| format!("HTTP {status}"));
            self.ledger.refused(channel, number);
        }
        if closes {
            self.drop_publisher(index);
        } else {
            self.publishers.idle.push(index);
        }
    }

    fn publisher_gone(&mut self, index: usize, reason: &str) {
        let Some(publisher) = &mut self.publishers.all[index] else { return };
        match publisher.current.take() {
            Some((channel, number, _)) => {
                let figures = &mut self.publishers.figures;
                figures.failed += 1;
                figures.first_failure.get_or_insert_with(|| reason.to_owned());
                self.ledger.refused(channel, number);
            }
            // Kept alive no longer, which is the server's right.
            None => self.publishers.idle.retain(|&idle| idle != index),
        }
        self.drop_publisher(index);
    }

    fn drop_publisher(&mut self, index: usize) {
        self.publishers.all[index] = None;
        self.publishers.free.push(index);
    }
}
