//! The query of a request: pairs of decoded names and values, and the values that several handlers read.

use super::problem::Problem;
use crate::broker::Since;
use std::time::Duration;

pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
            return Err(Problem::invalid_request("the query is not UTF-8"));
        }
        Ok(Self(form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect()))
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may stand once.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::invalid_request(format!("`{name}` stands more than once in the query"))),
        }
    }

    /// Whether a switch is on: `1` or `true`, off: `0`, `false` or absent.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => Err(Problem::invalid_request(format!("`{name}` is 1 or 0, not {other:?}"))),
        }
    }

    /// `since=`: a duration back from now, a time, `last:<count>` or `earliest`.
    pub(super) fn since(&self) -> Result<Option<Since>, Problem> {
        self.one("since")?.map(since).transpose()
    }
}

fn since(text: &str) -> Result<Since, Problem> {
    let wrong = || {
        Problem::invalid_request(format!(
            "`since` is a duration such as 10m, a time such as 2026-01-31T12:00:00Z or in seconds since 1970, \
             last:50, or earliest; not {text:?}"
        ))
    };
    if text == "earliest" {
        return Ok(Since::Earliest);
    }
    if let Some(count) = text.strip_prefix("last:") {
        let count = count.parse().ok().filter(|&count| count >= 1);
        return count.map(Since::Last).ok_or_else(wrong);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // Seconds, milliseconds or microseconds: no two of them mean the same age of the world.
        let number: u64 = text.parse().map_err(|_| wrong())?;
        let micros = match number {
            0..100_000_000_000 => number * 1_000_000,
            100_000_000_000..100_000_000_000_000 => number * 1_000,
            _ => number,
        };
        return Ok(Since::Time(micros));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::Time(u64::try_from(time.as_microsecond()).unwrap_or(0)));
    }
    let back = duration(text).ok_or_else(wrong)?;
    Ok(Since::Ago(u64::try_from(back.as_micros()).unwrap_or(u64::MAX)))
}

/// A number with a unit: `250ms`, `10s`, `1.5h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_since() {
        let read = |text: &str| Query::parse(Some(&format!("since={text}"))).ok()?.since().ok().flatten();
        assert_eq!(read("earliest"), Some(Since::Earliest));
        assert_eq!(read("last:50"), Some(Since::Last(50)));
        assert_eq!(read("1700000000"), Some(Since::Time(1_700_000_000_000_000)));
        assert_eq!(read("1700000000000"), Some(Since::Time(1_700_000_000_000_000)));
        assert_eq!(read("2023-11-14T22:13:20Z"), Some(Since::Time(1_700_000_000_000_000)));
        assert_eq!(read("2023-11-14T23:13:20%2B01:00"), Some(Since::Time(1_700_000_000_000_000)));
        assert_eq!(read("10m"), Some(Since::Ago(600_000_000)));
        assert_eq!(read("1.5h"), Some(Since::Ago(5_400_000_000)));
        for bad in ["last:0", "last:", "last:-1", "10", "x", "10w", "m", "99999999999999999999d", "-5m"] {
            assert!(bad == "10" || read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_that_may_stand_once_stands_once() {
        let Ok(query) = Query::parse(Some("hello=1&hello=0&heartbeat=event&x=%C3%A9")) else { panic!("UTF-8") };
        assert!(Query::parse(Some("x=%ff")).is_err());
        assert!(query.switch("hello").is_err() && query.switch("heartbeat").is_err());
        assert_eq!(query.one("x").ok().flatten(), Some("é"));
        assert!(!query.switch("absent").expect("off"));
    }
}
