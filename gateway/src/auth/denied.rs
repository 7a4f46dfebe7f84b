//! Tokens that are not to be let in any more, by their ids.
//!
//! The list stands in the broker, so that a replica that starts later has it; a message between replicas makes a new
//! entry hold everywhere at once. An entry ends by itself, after every token that it can mean has expired.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

/// A replica's copy of the list.
#[derive(Debug, Default)]
pub struct Denied {
    entries: RwLock<HashMap<String, u64>>,
    is_known: AtomicBool,
}

/// The longest token id that can be denied, in bytes.
pub const MAX_ID_BYTES: usize = 512;

impl Denied {
    /// Whether the broker's list was ever read. Before, no token with an id can be let in.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Whether a token is denied now.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        let until = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        until.is_some_and(|until| until > now_ms())
    }

    /// Denies a token until then, in milliseconds since 1970; the later of two such times holds.
    pub fn add(&self, id: &str, until_ms: u64) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(id.to_owned()).or_default();
        *entry = until_ms.max(*entry);
    }

    /// Adds what the broker has, and forgets what is over. Answers the entries that are new.
    pub fn merge(&self, listed: Vec<(String, u64)>) -> Vec<(String, u64)> {
        let mut new = Vec::new();
        for (id, until_ms) in listed {
            if !self.has(&id) {
                new.push((id.clone(), until_ms));
            }
            self.add(&id, until_ms);
        }
        self.is_known.store(true, Ordering::Release);
        let now = now_ms();
        self.entries.write().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now);
        new
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_until_its_time_and_the_later_time_counts() {
        let denied = Denied::default();
        denied.add("a", now_ms() + 60_000);
        denied.add("a", now_ms() - 1);
        denied.add("b", now_ms() - 1);
        assert!(denied.has("a") && !denied.has("b") && !denied.has("c"));
        let later = now_ms() + 60_000;
        assert_eq!(denied.merge(vec![("c".to_owned(), later), ("a".to_owned(), later)]), [("c".to_owned(), later)]);
        assert!(denied.has("a") && denied.has("c"));
        assert_eq!(denied.entries.read().expect("no panic").len(), 2, "what is over is forgotten");
    }
}
