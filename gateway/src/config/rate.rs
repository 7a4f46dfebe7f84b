//! How often something may happen: `"10/s"`, `"600/m burst 50"`.

use std::{fmt, num::NonZeroU32, time::Duration};

use ::config::ValueKind;
use serde_json::Value as Json;

use super::{
    settings::{Setting, Why},
    values::quoted,
};

/// So many in a time, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    /// `s`, `m` or `h`.
    unit: char,
    pub burst: NonZeroU32,
}

impl Rate {
    fn parse_text(text: &str) -> Option<Self> {
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) => (rate, Some(burst.trim().parse().ok()?)),
            None => (text, None),
        };
        let (count, unit) = rate.trim().split_once('/')?;
        let count = count.trim().parse().ok()?;
        let unit = match unit.trim() {
            "s" => 's',
            "m" => 'm',
            "h" => 'h',
            _ => return None,
        };
        Some(Self { count, unit, burst: burst.unwrap_or(count) })
    }

    /// In how much time one comes free.
    #[must_use]
    pub fn period(self) -> Duration {
        let seconds = match self.unit {
            's' => 1,
            'm' => 60,
            _ => 3600,
        };
        Duration::from_secs(seconds) / self.count.get()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit)?;
        if self.burst == self.count { Ok(()) } else { write!(f, " burst {}", self.burst) }
    }
}

impl Setting for Rate {
    const UNSET: &'static str = "off";

    fn kind() -> String {
        r#"a rate such as "10/s", "600/m" or "10/s burst 50""#.to_owned()
    }

    fn parse(value: &ValueKind) -> Result<Self, Why> {
        match value {
            ValueKind::String(text) => Self::parse_text(text).ok_or(None),
            _ => Err(None),
        }
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_back() {
        for (text, period_ms, burst) in
            [("10/s", 100, 10), ("600/m", 100, 600), ("10/s burst 50", 100, 50), ("36/h", 100_000, 36)]
        {
            let rate = Rate::parse_text(text).expect(text);
            assert_eq!(
                (rate.to_string(), rate.period().as_millis(), rate.burst.get()),
                (text.to_owned(), period_ms, burst)
            );
        }
        for wrong in
            ["", "10", "10/", "/s", "0/s", "10/s burst", "10/s burst 0", "-1/s", "1.5/s", "10/d", "10/s burst 1 2"]
        {
            assert!(Rate::parse_text(wrong).is_none(), "{wrong}");
        }
    }
}
