//! Where a channel stands: the id that a client would come back with.

use super::{
    decoder::Decoder,
    response::{Head, Piece, Response},
};
use crate::sse::Parser;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long a stream may take to name an id of its own accord, and after an event.
const UNASKED: Duration = Duration::from_secs(1);
const AFTER_AN_EVENT: Duration = Duration::from_secs(10);
/// How long one read waits.
const READ: Duration = Duration::from_millis(100);

/// A request, and where it goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) address: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// Opens a stream and gives the first id that it names. Servers that name none at the beginning are made to by an
/// event.
///
/// # Errors
/// When there is no stream, or none that names an id.
pub(super) fn first_id(stream: &Request, event: &Request) -> Result<String, String> {
    let opened = Stream::open(stream).and_then(|mut stream| Ok((stream.id(UNASKED)?, stream)));
    let (id, mut stream) = opened.map_err(|error| format!("cannot open a stream to resume: {error}"))?;
    if let Some(id) = id {
        return Ok(id);
    }
    publish(event).map_err(|error| format!("cannot publish: {error}"))?;
    let id = stream.id(AFTER_AN_EVENT).map_err(|error| format!("cannot read a stream to resume: {error}"))?;
    id.ok_or_else(|| "the server's events have no id to resume from".to_owned())
}

struct Stream {
    socket: TcpStream,
    response: Response,
    held: Vec<u8>,
    decoder: Option<Decoder>,
    parser: Parser,
}

impl Stream {
    fn open(request: &Request) -> io::Result<Self> {
        let mut socket = TcpStream::connect(request.address)?;
        socket.set_read_timeout(Some(READ))?;
        socket.write_all(&request.bytes)?;
        Ok(Self { socket, response: Response::START, held: Vec::new(), decoder: None, parser: Parser::new() })
    }

    fn id(&mut self, patience: Duration) -> io::Result<Option<String>> {
        let (began, mut buffer, mut events) = (Instant::now(), vec![0; 64 * 1024], Vec::new());
        while began.elapsed() < patience {
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error),
            };
            let mut bytes = &buffer[..count];
            let malformed = || io::Error::other("what came is no event stream");
            while let Some(piece) = self.response.next(&mut self.held, &mut bytes).map_err(|_| malformed())? {
                match piece {
                    Piece::Head(Head { status: 200, is_event_stream: true, encoding, .. }) => {
                        self.decoder = Decoder::new(encoding)?;
                    }
                    Piece::Head(head) => return Err(refused(head.status)),
                    Piece::Body(body) => {
                        let mut decoded = Vec::new();
                        match &mut self.decoder {
                            Some(decoder) => decoder.push(body, &mut decoded).map_err(|_| malformed())?,
                            None => decoded.extend_from_slice(body),
                        }
                        self.parser.push(&decoded, &mut events).map_err(io::Error::other)?;
                        events.clear();
                    }
                    Piece::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            if !self.parser.last_event_id().is_empty() {
                return Ok(Some(self.parser.last_event_id().to_owned()));
            }
        }
        Ok(None)
    }
}

fn publish(request: &Request) -> io::Result<()> {
    let mut socket = TcpStream::connect(request.address)?;
    socket.set_read_timeout(Some(AFTER_AN_EVENT))?;
    socket.write_all(&request.bytes)?;
    let (mut response, mut held, mut buffer) = (Response::START, Vec::new(), vec![0; 16 * 1024]);
    loop {
        let count = socket.read(&mut buffer)?;
        let mut bytes = &buffer[..count];
        match response.next(&mut held, &mut bytes) {
            Ok(Some(Piece::Head(head))) if (200..300).contains(&head.status) => return Ok(()),
            Ok(Some(Piece::Head(head))) => return Err(refused(head.status)),
            Ok(_) if count > 0 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn refused(status: u16) -> io::Error {
    io::Error::other(format!("it was answered {status}"))
}
