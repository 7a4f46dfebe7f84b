//! Durations and sizes as people write them: `"250ms"`, `"1.5h"`, `"64KiB"`, `"500KB"`.
//!
//! Arithmetic is exact and never on floats: what is printed reads back as the same value, and a text whose value is
//! no whole number of nanoseconds or bytes is refused and not rounded.

use std::{fmt, time::Duration};

/// Units of time, in nanoseconds.
const TIMES: [(&str, u128); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Units of size, in bytes; in the order in which printing prefers them.
const SIZES: [(&str, u128); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// No setting means anything beyond ten years, and sums of two such durations stay far from overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

impl ByteSize {
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn kib(kib: usize) -> Self {
        Self(kib * 1024)
    }

    #[must_use]
    pub const fn mib(mib: usize) -> Self {
        Self(mib * 1024 * 1024)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as u128;
        let (unit, scale) =
            SIZES.into_iter().find(|&(_, scale)| bytes != 0 && bytes.is_multiple_of(scale)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", bytes / scale)
    }
}

/// Reads a size: a number and a unit, in any case, or a plain number of bytes.
pub(super) fn parse_bytes(text: &str) -> Option<ByteSize> {
    let bytes = match text.parse::<u64>() {
        Ok(plain) => u128::from(plain),
        Err(_) => scaled(text, &SIZES)?,
    };
    usize::try_from(bytes).ok().map(ByteSize)
}

/// Reads a duration: a number and one of the units `ms`, `s`, `m`, `h`, `d`. A bare number is none, as it could mean
/// seconds as well as milliseconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = scaled(text, &TIMES).filter(|&nanos| nanos <= MAX_DURATION.as_nanos())?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Prints a duration in the largest unit that needs no fraction.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if let Some((unit, scale)) = TIMES.into_iter().find(|&(_, scale)| nanos.is_multiple_of(scale)) {
        return format!("{}{unit}", nanos / scale);
    }
    let fraction = format!("{:06}", nanos % 1_000_000);
    format!("{}.{}ms", nanos / 1_000_000, fraction.trim_end_matches('0'))
}

/// `text` as a decimal number times its unit, if that is a whole number.
fn scaled(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (_, scale) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    // More digits than any whole nanosecond or byte needs; the bound also keeps the power from overflowing.
    if fraction.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok().filter(|_| !whole.is_empty())?;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let product = digits.checked_mul(*scale)?;
    (product % divisor == 0).then_some(product / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(parse_duration("250ms"), ms(250));
        assert_eq!(parse_duration("1.5s"), ms(1_500));
        assert_eq!(parse_duration("10m"), ms(600_000));
        assert_eq!(parse_duration("2h"), ms(7_200_000));
        assert_eq!(parse_duration("7d"), ms(604_800_000));
        assert_eq!(parse_duration("0.5ms"), Some(Duration::from_micros(500)));
        for bad in ["", "10", "s", ".5s", "5.s", "1.2.3s", "-1s", "1e3s", "4000d", "10 parsecs", "0.0000001ms", "１s"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_bytes("64KiB"), Some(ByteSize::kib(64)));
        assert_eq!(parse_bytes("1.5 mib"), Some(ByteSize::kib(1536)));
        assert_eq!(parse_bytes("500KB"), Some(ByteSize::new(500_000)));
        assert_eq!(parse_bytes("512"), Some(ByteSize::new(512)));
        for bad in [
            "",
            "KiB",
            "1.5",
            "0.3B",
            "-1",
            "1K",
            "99999999999999999999TiB",
            "340282366920938463463374607431768211455TiB",
        ] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_unit_printed_is_the_one_a_person_would_choose() {
        assert_eq!(show_duration(Duration::from_secs(600)), "10m");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::ZERO), "0s");
        assert_eq!(ByteSize::kib(64).to_string(), "64KiB");
        assert_eq!(ByteSize::new(500_000).to_string(), "500KB");
        assert_eq!(ByteSize::new(0).to_string(), "0B");
    }

    proptest::proptest! {
        #[test]
        fn a_printed_duration_reads_back(nanos in 0..=MAX_DURATION.as_nanos() as u64, scale in 0_usize..6) {
            // Whole units as well as any nanosecond.
            let unit = [1, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000, 86_400_000_000_000][scale];
            let duration = Duration::from_nanos(nanos / unit * unit);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn a_printed_size_reads_back(bytes: usize, shift in 0_u32..48) {
            let size = ByteSize::new(bytes >> shift << shift);
            proptest::prop_assert_eq!(parse_bytes(&size.to_string()), Some(size));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9.]{1,45}[a-zA-Z]{0,3}") {
            let _ = parse_duration(&text);
            let _ = parse_bytes(&text);
        }
    }
}
