//! What goes over the wire: frames, plain and compressed, cursors, and the queue of bytes towards a hyper body.
//!
//! Nothing here knows of Redis, of shards or of HTTP requests.

pub mod compress;
pub mod cursor;
pub mod frame;
pub mod outbox;
