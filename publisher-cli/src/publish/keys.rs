//! Idempotency keys for events that were given none, so that what may have arrived can be sent again.

/// Keys that no other run makes.
pub(super) struct Keys {
    begin: String,
    made: u64,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { begin: format!("{:032x}", fastrand::u128(..)), made: 0 }
    }

    /// The key that the user gave, or a new one.
    pub(super) fn of(&mut self, event: &super::Outgoing) -> String {
        event.idempotency_key.clone().unwrap_or_else(|| {
            self.made += 1;
            format!("{}-{}", self.begin, self.made)
        })
    }
}
