//! Who may do what.

use std::sync::Arc;

/// Whom a request comes from, as far as it says.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The token's `sub`, the name that its connections are closed by.
    pub subject: Option<Arc<str>>,
}
