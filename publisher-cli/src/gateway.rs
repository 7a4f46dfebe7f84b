//! Requests to a gateway: addresses, the token, and what its refusals mean. Nothing here tries twice; what may be tried
//! again is told by [`RequestError::is_retryable`].

use crate::args::GatewayArgs;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, RETRY_AFTER},
    redirect,
};
use serde::Deserialize;
use std::{error::Error, time::Duration};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a thousand positions and problems are far smaller.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// The longest that a `Retry-After` is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// One gateway, or the load balancer before several.
#[derive(Clone, Debug)]
pub struct Gateway {
    base: Url,
    client: Client,
}

/// Why a request did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{at}: {reason}")]
    Unreachable { at: String, reason: String },
    #[error("{0}")]
    Refused(Refusal),
    #[error("{at} answers, but not as a Sluice gateway does: {reason}")]
    NotAGateway { at: String, reason: String },
    /// Nothing was sent, or nothing is to be sent again, for this reason.
    #[error("{0}")]
    Final(String),
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{reason} (HTTP {})", status.as_u16())]
pub struct Refusal {
    pub status: StatusCode,
    /// What the gateway says about it.
    pub reason: String,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// The fields of problem JSON (RFC 9457) that a person reads.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    title: Option<String>,
    pub(crate) status: Option<u16>,
    detail: Option<String>,
}

impl Problem {
    pub(crate) fn into_reason(self) -> Option<String> {
        match (self.title, self.detail) {
            (Some(title), Some(detail)) if title != detail => Some(format!("{title}: {detail}")),
            (title, detail) => detail.or(title),
        }
    }
}

/// Whether the same request may be answered better later: overload and what proxies say of a gateway that is away.
pub(crate) fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 502 | 503 | 504)
}

impl RequestError {
    /// Whether the same request may be answered better later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => is_retryable(refusal.status.as_u16()),
            Self::NotAGateway { .. } | Self::Final(_) => false,
        }
    }

    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl Gateway {
    /// A gateway to read from.
    ///
    /// # Errors
    /// When the system's certificates or proxy settings cannot be used.
    pub fn new(args: &GatewayArgs) -> Result<Self, String> {
        Self::with_redirects(args, |_status| true)
    }

    /// A gateway to publish to: a redirection that would turn the POST into a GET, and so look like a success that
    /// published nothing, is a refusal.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn for_publishing(args: &GatewayArgs) -> Result<Self, String> {
        Self::with_redirects(args, |status| matches!(status.as_u16(), 307 | 308))
    }

    fn with_redirects(args: &GatewayArgs, follows: fn(StatusCode) -> bool) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(bearer) = args.token.as_ref().and_then(|token| token.0.clone()) {
            headers.insert(AUTHORIZATION, bearer);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(redirect::Policy::custom(move |attempt| follow(attempt, follows)));
        if args.url.scheme() == "http" {
            // A machine without certificates, such as a bare container, can still talk without TLS.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&args.url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| format!("cannot set up HTTP: {}", innermost(&e)))?;
        Ok(Self { base: args.url.clone(), client })
    }

    /// The address below the gateway's own that the segments make, whatever characters they have.
    ///
    /// # Errors
    /// When a segment is `.` or `..`, which no HTTP client can send: they mean directories.
    pub fn url(&self, segments: &[&str]) -> Result<Url, RequestError> {
        if let Some(dots) = segments.iter().find(|s| matches!(**s, "." | "..")) {
            return Err(RequestError::Final(format!("the channel name {dots:?} cannot stand in an address")));
        }
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Ok(url)
    }

    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request; an answer is a success (2xx).
    ///
    /// # Errors
    /// When there is no answer, or it is a refusal.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, RequestError> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() { Ok(response) } else { Err(RequestError::Refused(refusal(response).await)) }
    }

    /// Reads the answer's body.
    ///
    /// # Errors
    /// When it breaks off, or is larger than any true answer.
    pub async fn body(&self, mut response: Response) -> Result<Vec<u8>, RequestError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(self.not_a_gateway("the answer is too large"));
            }
        }
        Ok(body)
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> RequestError {
        RequestError::Unreachable { at: self.shown(), reason: innermost(error) }
    }

    pub(crate) fn silent(&self, for_how_long: Duration) -> RequestError {
        RequestError::Unreachable { at: self.shown(), reason: format!("no answer for {for_how_long:?}") }
    }

    pub(crate) fn not_a_gateway(&self, reason: &str) -> RequestError {
        RequestError::NotAGateway { at: self.shown(), reason: reason.to_owned() }
    }

    /// The address without what may be secret in it.
    fn shown(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

async fn refusal(mut response: Response) -> Refusal {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let mut reason = match header(reqwest::header::LOCATION) {
        Some(target) if status.is_redirection() => {
            format!("the gateway has moved to {target}: give its address there as --url")
        }
        _ => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    let problem = serde_json::from_slice::<Problem>(&body).unwrap_or_default();
    if let Some(said) = problem.into_reason() {
        reason = said;
    }
    Refusal { status, reason, retry_after: retry_after.map(|wait| wait.min(MAX_RETRY_AFTER)) }
}

/// Never from http to https: the certificates are not loaded, and a token has been shown to the network already.
fn follow(attempt: redirect::Attempt<'_>, follows: fn(StatusCode) -> bool) -> redirect::Action {
    let same_scheme = attempt.previous().last().is_some_and(|from| from.scheme() == attempt.url().scheme());
    let goes_on = follows(attempt.status()) && same_scheme && attempt.previous().len() <= 5;
    if goes_on { attempt.follow() } else { attempt.stop() }
}

/// A proxy cannot reach our loopback; its settings mean everyone else.
fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|ip| ip.is_loopback())
    })
}

/// What went wrong, without the layers that it passed through.
fn innermost(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
