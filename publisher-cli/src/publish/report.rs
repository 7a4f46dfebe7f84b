//! What became of the events: positions for stdout, complaints for stderr, and the exit code.
//!
//! Neighbouring lines that failed for one reason are one complaint, so that a gateway that is away is not told of a
//! thousand times.

use super::{Outcome, Outgoing};
use crate::{exit::Failure, output};

#[derive(Debug, Default)]
pub(super) struct Report {
    published: u64,
    refused: u64,
    is_over: bool,
    complaints: Vec<Complaint>,
}

#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    /// First and last line; `None` for the one event of an input that is not lines.
    lines: Option<(u64, u64)>,
    reason: String,
}

impl Report {
    /// Takes note of the outcomes and gives the positions of what was published, one a line.
    pub(super) fn add(&mut self, events: &[Outgoing], outcomes: Vec<Outcome>) -> String {
        let mut positions = String::new();
        for (event, outcome) in events.iter().zip(outcomes) {
            match outcome {
                Ok(position) => {
                    self.published += 1;
                    positions.push_str(position.as_deref().unwrap_or("-"));
                    positions.push('\n');
                }
                Err(refused) => {
                    self.is_over |= refused.is_final;
                    self.complain(event.line, refused.reason);
                }
            }
        }
        positions
    }

    pub(super) fn add_unusable(&mut self, line: Option<u64>, reason: String) {
        self.complain(line, reason);
    }

    fn complain(&mut self, line: Option<u64>, reason: String) {
        self.refused += 1;
        if let (Some(line), Some(last)) = (line, self.complaints.last_mut())
            && last.reason == reason
            && let Some((_, to)) = &mut last.lines
            && *to + 1 == line
        {
            *to = line;
            return;
        }
        self.complaints.push(Complaint { lines: line.map(|line| (line, line)), reason });
    }

    /// Whether a failure was met that the rest of the input would meet too.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says on stderr what has not been said yet.
    pub(super) fn flush(&mut self) {
        for complaint in self.complaints.drain(..) {
            output::say(&complaint.to_string());
        }
    }

    pub(super) fn conclude(mut self, is_bulk: bool) -> Result<(), Failure> {
        self.flush();
        if self.refused == 0 {
            return Ok(());
        }
        if is_bulk {
            output::say(&format!("published {} events, {} were refused", self.published, self.refused));
        }
        Err(Failure::AlreadySaid)
    }
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lines {
            None => write!(f, "not published: {}", self.reason),
            Some((from, to)) if from == to => write!(f, "line {from} not published: {}", self.reason),
            Some((from, to)) => write!(f, "lines {from} to {to} not published: {}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_one_reason_are_one_complaint() {
        let mut report = Report::default();
        for (line, reason) in [(1, "away"), (2, "away"), (4, "away"), (5, "too large"), (6, "away")] {
            report.add_unusable(Some(line), reason.into());
        }
        let said: Vec<String> = report.complaints.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "lines 1 to 2 not published: away",
                "line 4 not published: away",
                "line 5 not published: too large",
                "line 6 not published: away",
            ]
        );
    }
}
