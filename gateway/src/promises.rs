//! What the parsers of foreign bytes promise, as functions that panic where a promise is broken.
//!
//! Each has two callers: a property test beside it, which takes seconds and runs with all tests, and a target in `fuzz/`,
//! which takes as long as it is given. So that both say the same, the promise is written here once. It may look into what
//! it is about: where that is private, the promise stands in a module below it, and is only named here. Nothing of this
//! is in a build for use: it is there for tests, and where `fuzzing` is set, which cargo-fuzz does.

mod edge;
mod frame;
mod names;

pub use crate::{
    auth::promises::token,
    broker::redis::promises::message,
    config::promises::config,
    http::promises::{publish_body, request, whole_request},
    sse::cursor::promises::{cursor, places},
};
pub use edge::{forwarded_for, proxy_header};
pub use frame::event;
pub use names::{name, position};
