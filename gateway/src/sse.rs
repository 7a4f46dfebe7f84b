//! What goes over the wire: frames, cursors and the queue of bytes towards a hyper body.
//!
//! Nothing here knows of Redis, of shards or of HTTP requests.

pub mod cursor;
pub mod frame;
pub mod outbox;
