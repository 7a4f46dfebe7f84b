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
    let named = origin.filter(|origin| origins.iter().any(|one| one != "*" && one.as_bytes() == origin.as_bytes()));
    if origins.iter().any(|origin| origin != "*") {
        // Also for those who are not listed: what is kept of this answer must not be given to those who are.
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
    let allowed = match named {
        Some(origin) => {
            // With cookies, as only those who are listed by name may.
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            origin.clone()
        }
        None if any => HeaderValue::from_static("*"),
        None => return,
    };
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After, WWW-Authenticate"));
}

/// Adds what the answer to a preflight needs beside.
pub(super) fn add_preflight(answer: &mut HeaderMap, methods: &'static str) {
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Accept, Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key",
        ),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}
