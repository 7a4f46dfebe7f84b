//! Reading streams.

use super::{Ended, Engine};
use mio::event::Event;
use rustix::io::Errno;

impl Engine {
    pub(super) fn stream_ready(&mut self, index: usize, event: &Event) {
        if !self.streams[index].asked
            && event.is_writable()
            && let Err(reason) = self.ask(index)
        {
            return self.ended(index, &reason);
        }
        if event.is_readable() || event.is_error() {
            let was_open = self.streams[index].reader.is_open();
            let read = self.read(index, event.is_read_closed() || event.is_error());
            if !was_open && self.streams[index].reader.is_open() {
                self.counts.open += 1;
                self.opening.pending -= 1;
            }
            if let Err(reason) = read {
                self.ended(index, &reason);
            }
        }
    }

    /// Reads what there is. A read that does not fill the buffer has emptied the socket, and whatever comes after it
    /// is reported anew; only an end that came with the data would be missed.
    fn read(&mut self, index: usize, to_the_end: bool) -> Result<(), Ended> {
        loop {
            let Some(socket) = &self.streams[index].socket else { return Ok(()) };
            let count = match rustix::io::read(socket, &mut self.buffer[..]) {
                Ok(0) => return Err(Ended::Closed),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(Ended::Socket(error.kind())),
            };
            let at = self.now();
            self.last_bytes = at;
            self.ledger.wire_bytes += count as u64;
            let bytes = &self.buffer[..count];
            self.streams[index].reader.take(index as u32, bytes, at, &mut self.ledger, &mut self.spare)?;
            if count < self.buffer.len() && !to_the_end {
                return Ok(());
            }
        }
    }
}
