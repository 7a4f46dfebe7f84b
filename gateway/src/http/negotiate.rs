//! Which form of a stream a client wants, by its `Accept` header (RFC 9110, 12.5.1).

use super::problem::Problem;
use hyper::header::{ACCEPT, HeaderMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Sse,
    Ndjson,
    /// One JSON answer with what is there, or comes next.
    Poll,
}

const OFFERED: [(&str, Form); 3] =
    [("text/event-stream", Form::Sse), ("application/x-ndjson", Form::Ndjson), ("application/json", Form::Poll)];

/// The offered form that the client likes best; of those it likes alike, the first in the header's order, and for
/// `*/*`, or no header at all, server-sent events.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let mut best: Option<(u16, Form)> = None;
    let mut any = true;
    for range in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')) {
        any = false;
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1000, |q| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16));
        let offered = OFFERED.iter().find(|(name, _)| {
            *name == media || media == "*/*" || media.strip_suffix('*').is_some_and(|kind| name.starts_with(kind))
        });
        if let Some((_, form)) = offered
            && quality > best.map_or(0, |(quality, _)| quality)
        {
            best = Some((quality, *form));
        }
    }
    match best {
        Some((_, form)) => Ok(form),
        None if any => Ok(Form::Sse),
        None => Err(Problem::not_acceptable(
            "a stream is text/event-stream or application/x-ndjson, a poll application/json: ask for one in `Accept`",
        )),
    }
}

/// Whether the request is (or may be) an EventSource's, which gives up for ever on any status but 200.
pub(super) fn is_event_source(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|v| v.contains("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &'static str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a value"));
        form(&headers).ok()
    }

    #[test]
    fn the_client_chooses() {
        assert_eq!(form(&HeaderMap::new()).ok(), Some(Form::Sse));
        assert_eq!(of("text/event-stream"), Some(Form::Sse));
        assert_eq!(of("*/*"), Some(Form::Sse));
        assert_eq!(of("application/x-ndjson"), Some(Form::Ndjson));
        assert_eq!(of("application/json, text/plain, */*"), Some(Form::Poll));
        assert_eq!(of("text/event-stream;q=0.5, application/x-ndjson"), Some(Form::Ndjson));
        assert_eq!(of("text/html"), None);
        assert_eq!(of("text/event-stream;q=0"), None);
    }
}
