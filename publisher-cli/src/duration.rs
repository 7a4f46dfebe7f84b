//! Durations as people write them: `500ms`, `10s`, `5m`, `1h`, or a bare number of seconds.

use std::time::Duration;

/// Some thirty years: more is a slip, and adding it to a clock could overflow.
const MAX_SECONDS: f64 = 1e9;

/// A parser for clap.
///
/// # Errors
/// When the text is no number with one of the units.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(explain(text)),
    };
    let number: f64 = number.parse().map_err(|_| explain(text))?;
    Some(number * seconds_per_unit)
        .filter(|&seconds| seconds <= MAX_SECONDS)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| explain(text))
}

/// So many seconds in the largest unit that leaves more than one.
pub(crate) fn show(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn explain(text: &str) -> String {
    format!("a duration is a number with ms, s, m or h, such as 500ms or 10s, not {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_nonsense() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("10", 10_000), ("1.5m", 90_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "+1s", "1d", "1 s", "1e3", ".", "99999999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
