//! Who makes a request: from where, and with which rights.

use super::{
    App,
    credentials::{self, Presented},
    pending::Seat,
    problem::Problem,
    query::Query,
};
use crate::{
    auth::{Act, Identity, Invalid},
    channel::Channel,
    config::Proxy,
    edge::{
        hops::{self, Trust},
        tls::Certificate,
    },
};
use hyper::{HeaderMap, header::ORIGIN};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// As the kernel or a PROXY header has it: a client's, or a proxy's.
    pub(super) address: SocketAddr,
    /// The certificate that it presented, verified.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// Its part in what may wait.
    pub(super) seat: Arc<Seat>,
}

impl Peer {
    /// One of which nothing but the address is known.
    pub(super) fn at(address: SocketAddr, seat: Arc<Seat>) -> Self {
        Self { address, certificate: None, seat }
    }

    /// Whose request it is that came with these headers: this peer's, or that of a client it speaks for.
    fn client(&self, headers: &HeaderMap, proxy: &Proxy) -> IpAddr {
        hops::client(self.address.ip(), headers, &Trust { networks: &proxy.trusted, hops: proxy.hops })
    }
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
    /// When there is a token that is not valid, or that a page of another origin has the browser send.
    pub(super) fn of(app: &App, peer: &Peer, headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        let address = peer.client(headers, &app.config.proxy);
        if app.auth.is_open() {
            return Ok(Self { address, identity: Arc::default() });
        }
        let counted = |reason: &str, problem: Problem| {
            app.metrics.auth_failures.with_label_values(&[reason]).inc();
            problem
        };
        let presented = credentials::presented(headers, query, &app.config.auth.cookie);
        let Some(Presented { token, by_cookie }) = presented.map_err(|problem| counted("invalid", problem))? else {
            return Ok(Self { address, identity: Arc::default() });
        };
        if by_cookie && !is_of_our_pages(app, headers) {
            let detail = "a token in a cookie is taken from pages of this origin and of those in `cors.origins`";
            return Err(counted("origin", Problem::forbidden(detail)));
        }
        let identity = app.auth.identify(&token).map_err(|invalid| {
            // Why, in full, is for the operator alone.
            tracing::debug!(%address, %invalid, "a token is refused");
            match invalid {
                Invalid::Expired => counted("expired", Problem::invalid_token("the token has expired")),
                Invalid::Denied => counted("denied", Problem::invalid_token("the token is not valid")),
                Invalid::Wrong(_) => counted("invalid", Problem::invalid_token("the token is not valid")),
                Invalid::KeysUnavailable => counted(
                    "keys",
                    Problem::overloaded("tokens cannot be verified just now: the issuer's keys, or the list of those that are denied, are not here yet"),
                ),
            }
        })?;
        Ok(Self { address, identity: Arc::new(identity) })
    }

    /// # Errors
    /// When the caller may not do this to `channel`: 401 without a token, 403 with one.
    pub(super) fn may(&self, app: &App, act: Act, channel: &Channel) -> Result<(), Problem> {
        if app.auth.allows(&self.identity, act, channel) {
            return Ok(());
        }
        let what = match act {
            Act::Read => "subscribe to",
            Act::Publish => "publish to",
        };
        Err(self.lacks(app, &format!("{what} {channel}")))
    }

    /// # Errors
    /// When the caller's token does not say `admin`.
    pub(super) fn must_be_admin(&self, app: &App) -> Result<(), Problem> {
        if app.auth.is_admin(&self.identity) { Ok(()) } else { Err(self.lacks(app, "do this: it takes `admin`")) }
    }

    fn lacks(&self, app: &App, what: &str) -> Problem {
        if self.identity.grants.is_some() {
            app.metrics.auth_failures.with_label_values(&["forbidden"]).inc();
            return Problem::forbidden(format!("the token does not allow to {what}"));
        }
        app.metrics.auth_failures.with_label_values(&["missing"]).inc();
        Problem::missing_token(format!("a token is needed to {what}"))
    }
}

/// Whether a page that may has made the request: browsers say which (Fetch, `Sec-Fetch-Site`; RFC 6454), and no page can
/// say otherwise.
fn is_of_our_pages(app: &App, headers: &HeaderMap) -> bool {
    // Of several, none is the browser's.
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if only("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin") {
        return true;
    }
    let origins = &app.config.cors.origins;
    let listed = |origin: &[u8]| origins.iter().any(|listed| listed != "*" && listed.as_bytes() == origin);
    only(ORIGIN.as_str()).is_some_and(|origin| listed(origin.as_bytes()))
}
