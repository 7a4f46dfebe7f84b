//! Errors as `application/problem+json` (RFC 9457), with a `type` that stays and a `detail` that says what to do.

use super::body::Body;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use std::{borrow::Cow, time::Duration};

/// One problem. What must be retried has `retry_after`; everything else must not be.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    /// Seconds.
    #[serde(skip)]
    pub retry_after: Option<u64>,
    #[serde(skip)]
    pub allow: Option<&'static str>,
}

/// The last part of a problem's type, on the answer that tells of it.
#[derive(Clone)]
pub(super) struct ProblemType(pub(super) Box<str>);

impl Problem {
    fn new(slug: &'static str, title: &'static str, status: StatusCode, detail: impl Into<String>) -> Self {
        let kind = format!("urn:sluice:problem:{slug}").into();
        Self { kind, title, status: status.as_u16(), detail: detail.into(), retry_after: None, allow: None }
    }

    pub fn invalid_channel(detail: impl Into<String>) -> Self {
        Self::new("invalid-channel", "Invalid channel", StatusCode::BAD_REQUEST, detail)
    }

    pub fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new("invalid-request", "Invalid request", StatusCode::BAD_REQUEST, detail)
    }

    pub fn invalid_event(detail: impl Into<String>) -> Self {
        Self::new("invalid-event", "Invalid event", StatusCode::BAD_REQUEST, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new("forbidden", "Forbidden", StatusCode::FORBIDDEN, detail)
    }

    /// There is a token, and it is not valid.
    pub fn invalid_token(detail: impl Into<String>) -> Self {
        Self::new("invalid-token", "Invalid token", StatusCode::UNAUTHORIZED, detail)
    }

    /// There is no token, and there must be one.
    pub fn missing_token(detail: impl Into<String>) -> Self {
        Self::new("token-needed", "Token needed", StatusCode::UNAUTHORIZED, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new("not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        let problem = Self::new("method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED, detail);
        Self { allow: Some(allow), ..problem }
    }

    pub fn not_acceptable(detail: impl Into<String>) -> Self {
        Self::new("not-acceptable", "Not acceptable", StatusCode::NOT_ACCEPTABLE, detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new("too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub fn target_too_long(detail: impl Into<String>) -> Self {
        Self::new("uri-too-long", "URI too long", StatusCode::URI_TOO_LONG, detail)
    }

    pub fn headers_too_large(detail: impl Into<String>) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new("headers-too-large", "Headers too large", status, detail)
    }

    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new("unsupported-media-type", "Unsupported media type", StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub fn timed_out(detail: impl Into<String>) -> Self {
        Self::new("request-timeout", "Request timeout", StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// The broker does not answer: nothing was accepted, or it is not known whether it was.
    pub fn broker_unavailable(detail: impl Into<String>) -> Self {
        Self::new("broker-unavailable", "Broker unavailable", StatusCode::SERVICE_UNAVAILABLE, detail).retried()
    }

    /// This replica takes no more just now.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new("overloaded", "Overloaded", StatusCode::SERVICE_UNAVAILABLE, detail).retried()
    }

    /// The client has, or does, more than it may.
    pub fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let problem = Self::new("too-many-requests", "Too many requests", StatusCode::TOO_MANY_REQUESTS, detail);
        // Up to two seconds more by chance, so that those who come back do not come at once.
        Self { retry_after: Some(wait.as_secs() + fastrand::u64(1..=3)), ..problem }
    }

    /// With a `Retry-After` of 1 to 3 s by chance, so that those who come back do not come at once.
    fn retried(self) -> Self {
        Self { retry_after: Some(fastrand::u64(1..=3)), ..self }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = serde_json::to_value(&self).unwrap_or_default();
        self.with_body(body)
    }

    /// The same, with more members in its body.
    pub(super) fn with_body(self, body: serde_json::Value) -> Response<Body> {
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status();
        if let Some(slug) = self.kind.rsplit(':').next() {
            response.extensions_mut().insert(ProblemType(slug.into()));
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            // RFC 6750, 3: an error is named only where a token was given.
            let is_invalid = self.kind.ends_with(":invalid-token");
            let challenge = if is_invalid { "Bearer error=\"invalid_token\"" } else { "Bearer" };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
