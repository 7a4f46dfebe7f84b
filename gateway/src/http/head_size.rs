//! Requests' heads that are too large.
//!
//! hyper refuses those too, but without knowing what is allowed, and on HTTP/2 with an empty answer. It is given a little
//! more room than is allowed, so that most are refused here, with one that says what to do.

use super::problem::Problem;
use hyper::Request;

/// What hyper may take beyond `http.max_header_bytes`.
pub(super) const ROOM: usize = 16 * 1024;
/// What HTTP/1.1 writes around a header's name and value.
const AROUND: usize = 4;

/// # Errors
/// When the head has more than `most` bytes: 414 if its target alone has, else 431.
pub(super) fn check<T>(request: &Request<T>, most: usize) -> Result<(), Problem> {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND);
    let size = target + headers.sum::<usize>();
    if size <= most {
        return Ok(());
    }
    let allowed = format!("where `http.max_header_bytes` allows {most}");
    Err(if target > most {
        Problem::target_too_long(format!("the URL has {target} bytes, {allowed}"))
    } else {
        Problem::headers_too_large(format!("the request's head has {size} bytes, {allowed}"))
    })
}
