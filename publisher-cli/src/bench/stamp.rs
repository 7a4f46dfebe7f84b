//! What makes an event recognisable: a stamp of fixed length somewhere in its data.
//!
//! It is of letters, digits and `~`, which no server, JSON encoder or envelope changes, so that it is found whatever a
//! server wraps around the data.

use memchr::memmem::Finder;

/// A stamp's length in bytes: the marker, channel, number, time and the closing `~`.
pub(crate) const LENGTH_BYTES: usize = MARKER_BYTES + CHANNEL_DIGITS + NUMBER_DIGITS + TIME_DIGITS + 1;

const MARKER_BYTES: usize = 9;
const CHANNEL_DIGITS: usize = 6;
const NUMBER_DIGITS: usize = 8;
/// Nanoseconds for 200 days.
const TIME_DIGITS: usize = 14;

/// Which event this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The channel's index.
    pub(super) channel: u32,
    /// The event's number in its channel, from 0, as sent.
    pub(super) number: u32,
    /// When it was to be sent, in nanoseconds of the run's clock.
    pub(super) time: u64,
}

/// Writes the stamps of one run, and finds them.
#[derive(Debug)]
pub(super) struct Stamps {
    marker: String,
    finder: Finder<'static>,
}

impl Stamps {
    /// Stamps of the run with this id: those of other runs on the same channels are not found.
    pub(super) fn new(run: u32) -> Self {
        let marker = format!("~{run:08x}");
        let finder = Finder::new(&marker).into_owned();
        Self { marker, finder }
    }

    pub(super) fn write(&self, stamp: Stamp, into: &mut Vec<u8>) {
        let Stamp { channel, number, time } = stamp;
        let time = time & ((1 << (4 * TIME_DIGITS)) - 1);
        into.extend_from_slice(format!("{}{channel:06x}{number:08x}{time:014x}~", self.marker).as_bytes());
    }

    /// The stamps in the data, first to last.
    pub(super) fn find<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = Stamp> + 'a {
        self.finder.find_iter(data).filter_map(|at| read(data.get(at + MARKER_BYTES..at + LENGTH_BYTES)?))
    }
}

fn read(digits: &[u8]) -> Option<Stamp> {
    let (channel, rest) = digits.split_at_checked(CHANNEL_DIGITS)?;
    let (number, rest) = rest.split_at_checked(NUMBER_DIGITS)?;
    let (time, rest) = rest.split_at_checked(TIME_DIGITS)?;
    if rest != b"~" {
        return None;
    }
    let channel = u32::try_from(hexadecimal(channel)?).ok()?;
    let number = u32::try_from(hexadecimal(number)?).ok()?;
    Some(Stamp { channel, number, time: hexadecimal(time)? })
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &digit| Some(value << 4 | u64::from((digit as char).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_whatever_stands_around_it() {
        let stamps = Stamps::new(0xabc);
        let one = Stamp { channel: 0, number: 0, time: 0 };
        let other = Stamp { channel: 0xff_ffff, number: u32::MAX, time: (1 << 56) - 1 };
        let mut data = b"{\"pub\":\"".to_vec();
        stamps.write(one, &mut data);
        data.extend_from_slice(b"\",~~00000abc, ");
        stamps.write(other, &mut data);
        assert_eq!(stamps.find(&data).collect::<Vec<_>>(), [one, other]);
        assert_eq!(stamps.find(&data[..data.len() - 1]).collect::<Vec<_>>(), [one]);
        assert_eq!(Stamps::new(0xabd).find(&data).count(), 0);
    }

    #[test]
    fn a_stamp_has_its_length() {
        let mut data = Vec::new();
        Stamps::new(u32::MAX).write(Stamp { channel: 1, number: 2, time: u64::MAX }, &mut data);
        assert_eq!(data.len(), LENGTH_BYTES);
    }
}
