//! Ports for the processes of this run.
//!
//! They lie below the range from which the kernel takes those of outgoing connections: thousands of clients make the
//! usual trick, to bind port 0 and close it again, lose its port to one of them now and then.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Test processes that run at the same time begin in different places.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new((std::process::id() % 199) as u16 * 100));

/// The same whose port and 10,000, where an older server of a cluster speaks to the others, is free as well.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_with_bus() -> SocketAddr {
    for _ in 0..COUNT {
        let address = free();
        // Below those of outgoing connections too.
        let bus = address.port() + 10_000;
        if bus < 32_768 && TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok() {
            return address;
        }
    }
    panic!("no free port with another");
}

/// A loopback address that nobody listens on, and that this process gives out once.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free() -> SocketAddr {
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
