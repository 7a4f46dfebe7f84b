//! Who makes a request: from where, and with which rights.

use super::problem::Problem;
use crate::auth::Identity;
use hyper::HeaderMap;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// As the kernel has it: a client's, or a proxy's.
    pub(super) address: SocketAddr,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The client's own address, as far as it can be known.
    pub(super) address: IpAddr,
    pub(super) identity: Arc<Identity>,
}

impl Caller {
    /// # Errors
    /// When there is a token that is not valid.
    pub(super) fn of(peer: &Peer, _headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { address: peer.address.ip().to_canonical(), identity: Arc::default() })
    }
}
