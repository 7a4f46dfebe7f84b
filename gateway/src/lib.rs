//! Sluice, a horizontally scaled gateway for Server-Sent Events.

pub mod channel;
pub mod event;
pub mod position;
