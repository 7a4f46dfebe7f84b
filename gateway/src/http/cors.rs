//! Which pages of other origins may use the gateway from a browser.
//!
//! Any may until `cors.origins` lists some. The headers stand on every answer, errors too: without them a page could
//! not even see why it was refused.

use crate::config::Config;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, VARY,
};

/// Adds what an answer to a request from a page of `origin` needs.
pub(super) fn add(config: &Config, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    let origins = &config.cors.origins;
    let any = origins.is_empty() || origins.iter().any(|origin| origin == "*");
    let allowed = if any {
        Some(HeaderValue::from_static("*"))
    } else {
        answer.append(VARY, HeaderValue::from_static("Origin"));
        origin.filter(|origin| origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())).cloned()
    };
    if let Some(origin) = allowed {
        if !any {
            // With cookies, as only those who are listed by name may.
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
}

/// Adds what the answer to a preflight needs beside.
pub(super) fn add_preflight(answer: &mut HeaderMap, methods: &'static str) {
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Accept, Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID"),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}
