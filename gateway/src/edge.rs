//! What stands between the kernel's socket and HTTP: the header of a proxy before us, TLS, and whom a proxy speaks for.
//!
//! Nothing here knows of requests' meaning, of settings or of the hub: it is told what to do, and answers with facts.

pub mod hops;
pub mod networks;
pub mod proxy_header;
pub mod tls;
