//! One connection to `GET /events`: made, checked, and read until it ends, breaks or falls silent.

use crate::{
    args::TailArgs,
    gateway::{Gateway, RequestError},
};
use bytes::Bytes;
use reqwest::{
    Method, Response,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use std::time::Duration;

/// A stream whose answer was 200 and `text/event-stream`.
pub(super) struct Stream {
    gateway: Gateway,
    response: Response,
    /// A stream with heartbeats is never silent for long; one that is has lost its other end without notice.
    idle_timeout: Duration,
}

impl Stream {
    /// # Errors
    /// As EventSource has it, everything that is no event stream; what may be so for a while is told by
    /// [`RequestError::is_retryable`].
    pub(super) async fn open(gateway: &Gateway, args: &TailArgs, last_event_id: &str) -> Result<Self, RequestError> {
        let mut url = gateway.url(&["events"])?;
        url.query_pairs_mut().extend_pairs(args.channels.iter().map(|channel| ("channel", channel.as_str())));
        url.query_pairs_mut().append_pair("envelope", "1");
        if let Some(since) = &args.since {
            // Kept when reconnecting, as the address of an EventSource is: a cursor wins over it.
            url.query_pairs_mut().append_pair("since", since);
        }
        let mut request = gateway.request(Method::GET, url);
        request = request.header(ACCEPT, "text/event-stream").header(CACHE_CONTROL, "no-store");
        // The id is the gateway's own; one that no header can hold is not from a gateway.
        if let Some(value) =
            Some(last_event_id.as_bytes()).filter(|id| !id.is_empty()).and_then(|id| HeaderValue::from_bytes(id).ok())
        {
            request = request.header("last-event-id", value);
        }
        let response = tokio::time::timeout(args.idle_timeout, gateway.send(request))
            .await
            .map_err(|_| gateway.silent(args.idle_timeout))??;
        check(gateway, &response)?;
        Ok(Self { gateway: gateway.clone(), response, idle_timeout: args.idle_timeout })
    }

    /// The next bytes; `None` when the gateway has ended the stream in good order.
    ///
    /// # Errors
    /// When the connection breaks or falls silent.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        match tokio::time::timeout(self.idle_timeout, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| self.gateway.unreachable(&e)),
            Err(_) => Err(self.gateway.silent(self.idle_timeout)),
        }
    }
}

fn check(gateway: &Gateway, response: &Response) -> Result<(), RequestError> {
    let status = response.status();
    if status.as_u16() == 204 {
        return Err(RequestError::Final("the gateway says to stop (HTTP 204)".into()));
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if status.as_u16() != 200 || !essence.eq_ignore_ascii_case("text/event-stream") {
        let reason = format!("HTTP {} with {content_type:?} is no event stream", status.as_u16());
        return Err(gateway.not_a_gateway(&reason));
    }
    Ok(())
}
