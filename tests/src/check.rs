//! The judge: whether a client got every event of a channel once and in order.
//!
//! Events carry their channel and a number in their data ([`payload`]), so that what is judged is what arrived and not
//! what some header says of it.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

/// The data of a channel's `number`th event.
#[must_use]
pub fn payload(channel: &str, number: u64) -> String {
    format!("{channel} {number}")
}

/// The same with filling up to about `bytes`.
#[must_use]
pub fn payload_of_size(channel: &str, number: u64, bytes: usize) -> String {
    let mut text = payload(channel, number);
    text.push(' ');
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

/// The number in data that [`payload`] made for `channel`.
#[must_use]
pub fn number(channel: &str, data: &str) -> Option<u64> {
    data.strip_prefix(channel)?.strip_prefix(' ')?.split(' ').next()?.parse().ok()
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// These never came.
    Lost(Vec<u64>),
    Doubled(u64),
    /// Came for the first time after a higher one.
    Late {
        number: u64,
        after: u64,
    },
    /// Was never published.
    Unexpected(u64),
}

/// All that was wrong on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    pub channel: String,
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}: {:?}", self.channel, &self.faults[..self.faults.len().min(10)])
    }
}

/// Judges the data of the events that one client got, in their order. Those of other channels do not matter.
///
/// # Errors
/// All that is wrong.
pub fn once_and_in_order<'a>(
    channel: &str,
    data: impl IntoIterator<Item = &'a str>,
    expected: RangeInclusive<u64>,
) -> Result<(), Faults> {
    let (mut seen, mut highest, mut faults) = (BTreeSet::new(), 0, Vec::new());
    for number in data.into_iter().filter_map(|data| number(channel, data)) {
        if !expected.contains(&number) {
            faults.push(Fault::Unexpected(number));
        } else if !seen.insert(number) {
            faults.push(Fault::Doubled(number));
        } else if number < highest {
            faults.push(Fault::Late { number, after: highest });
        }
        highest = highest.max(number);
    }
    let lost: Vec<_> = expected.filter(|number| !seen.contains(number)).collect();
    if !lost.is_empty() {
        faults.push(Fault::Lost(lost));
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults { channel: channel.to_owned(), faults }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(numbers: &[u64]) -> Vec<Fault> {
        let data: Vec<_> = numbers.iter().map(|&number| payload("a", number)).collect();
        let data = data.iter().map(String::as_str).chain(["b 1", "b 1", "other"]);
        once_and_in_order("a", data, 1..=4).map_or_else(|faults| faults.faults, |()| Vec::new())
    }

    #[test]
    fn all_once_and_in_order_is_right() {
        assert_eq!(judged(&[1, 2, 3, 4]), []);
    }

    #[test]
    fn a_lost_event_is_found_wherever_it_was() {
        assert_eq!(judged(&[2, 3, 4]), [Fault::Lost(vec![1])]);
        assert_eq!(judged(&[1, 3, 4]), [Fault::Lost(vec![2])]);
        assert_eq!(judged(&[1, 2]), [Fault::Lost(vec![3, 4])]);
        assert_eq!(judged(&[]), [Fault::Lost(vec![1, 2, 3, 4])]);
    }

    #[test]
    fn a_doubled_event_is_found() {
        assert_eq!(judged(&[1, 2, 2, 3, 4]), [Fault::Doubled(2)]);
        assert_eq!(judged(&[1, 2, 3, 4, 1]), [Fault::Doubled(1)]);
    }

    #[test]
    fn a_disordered_event_is_found() {
        assert_eq!(judged(&[1, 3, 2, 4]), [Fault::Late { number: 2, after: 3 }]);
    }

    #[test]
    fn an_event_that_nobody_published_is_found() {
        assert_eq!(judged(&[1, 2, 3, 4, 5]), [Fault::Unexpected(5)]);
    }

    #[test]
    fn filling_changes_no_number() {
        let data = payload_of_size("a", 7, 100);
        assert_eq!((data.len(), number("a", &data), number("aa", &data)), (100, Some(7), None));
    }
}
