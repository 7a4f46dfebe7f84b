//! A replica under attack, from real sockets: its good clients notice nothing, it stays within bounds, and afterwards
//! nothing is left over.

mod http2;
mod load;
mod requests;
mod siege;
mod slow;
