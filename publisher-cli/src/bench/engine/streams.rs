//! Reading streams.

use super::{super::http2::Arrival, Ended, Engine, Stage};
use mio::event::Event;
use rustix::io::Errno;

impl Engine {
    pub(super) fn stream_ready(&mut self, index: usize, event: &Event) {
        if self.streams[index].stage == Stage::Connecting
            && event.is_writable()
            && let Err(reason) = self.connected(index)
        {
            return self.ended(index, &reason);
        }
        if event.is_readable() || event.is_error() {
            let read = self.read(index, event.is_read_closed() || event.is_error());
            self.note(index, read);
        }
    }

    fn note(&mut self, index: usize, read: Result<(), Ended>) {
        if self.streams[index].stage != Stage::Open && self.streams[index].reader.is_open() {
            self.opened(index);
        }
        if let Err(reason) = read {
            self.ended(index, &reason);
        }
    }

    /// Reads what there is. A read that does not fill the buffer has emptied the socket, and whatever comes after it
    /// is reported anew; only an end that came with the data would be missed.
    fn read(&mut self, index: usize, to_the_end: bool) -> Result<(), Ended> {
        let Some(stream) = self.streams.get_mut(index) else { return Ok(()) };
        let Some(socket) = &stream.socket else { return Ok(()) };
        loop {
            let count = match rustix::io::read(socket, &mut self.buffer[..]) {
                Ok(0) => return Err(Ended::Closed),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(Ended::Socket(error.kind())),
            };
            let at = self.clock.now();
            self.last_bytes = at;
            self.ledger.wire_bytes += count as u64;
            let bytes = &self.buffer[..count];
            stream.reader.take(index as u32, bytes, at, &mut self.ledger, &mut self.scratch)?;
            if count < self.buffer.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Takes what the HTTP/2 streams have got.
    pub(super) fn http2_ready(&mut self) {
        let Some(http2) = self.http2.take() else { return };
        http2.looked();
        while let Some((index, arrival)) = http2.next() {
            let Some(stream) = self.streams.get_mut(index as usize) else { continue };
            let read = match arrival {
                Arrival::Head(head) => stream.reader.open(head),
                Arrival::Body(bytes, at) => {
                    let at = self.clock.at(at);
                    self.last_bytes = at;
                    stream.reader.take_body(index, &bytes, at, &mut self.ledger, &mut self.scratch)
                }
                Arrival::Ended(reason) => Err(reason),
            };
            self.note(index as usize, read);
        }
        self.ledger.wire_bytes += http2.take_wire_bytes();
        self.http2 = Some(http2);
    }
}
