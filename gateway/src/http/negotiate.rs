//! Which form of a stream a client wants, by its `Accept` header (RFC 9110, 12.5.1), and which encoding, by its
//! `Accept-Encoding` (12.5.3).

use super::problem::Problem;
use crate::sse::compress::Encoding;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

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
    for (media, quality) in preferences(headers, ACCEPT) {
        any = false;
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

/// The encoding that the client likes best; of those it likes alike, zstd before gzip, and gzip before none. A client
/// that does not say what it can read is sent everything as it is, as is one that can read nothing that is offered.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let listed: Vec<_> = preferences(headers, ACCEPT_ENCODING).collect();
    let quality = |names: &[&str]| {
        let of =
            |wanted: &dyn Fn(&str) -> bool| listed.iter().find(|(name, _)| wanted(name)).map(|(_, quality)| *quality);
        of(&|name| names.contains(&name)).or_else(|| of(&|name| name == "*"))
    };
    // Not listed, `identity` is acceptable, but liked less than anything that is.
    let identity = listed.iter().find(|(name, _)| name == "identity").map_or(0, |(_, quality)| *quality);
    let offered = [(Encoding::Zstd, quality(&["zstd"])), (Encoding::Gzip, quality(&["gzip", "x-gzip"]))];
    let mut best = (Encoding::Identity, identity);
    for (encoding, quality) in offered {
        let quality = quality.unwrap_or(0);
        if quality > best.1 || (quality == best.1 && quality > 0 && best.0 == Encoding::Identity) {
            best = (encoding, quality);
        }
    }
    best.0
}

/// What a header lists, in lower case, each with how much it is liked, in thousandths.
fn preferences(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (String, u16)> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1000, |q| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16));
        (name, quality)
    })
}

/// The header by which a proxy says that it goes on to another replica when it is answered with this status: to one that
/// looks only at the status, a stream that ends at once is a stream. What it says is believed of anybody, as it changes
/// nothing but the asker's own answer.
const REFUSE_WITH: &str = "sluice-refuse-with";

/// The status with which a proxy wants to be told that this replica lets no stream in just now: 502, 503 or 504.
pub(super) fn refuse_with(headers: &HeaderMap) -> Option<u16> {
    headers.get(REFUSE_WITH)?.to_str().ok()?.parse().ok().filter(|status| (502..=504).contains(status))
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

    fn coding(accept_encoding: &'static str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept_encoding.parse().expect("a value"));
        encoding(&headers)
    }

    #[test]
    fn an_encoding_is_used_only_if_it_is_asked_for() {
        use Encoding::{Gzip, Identity, Zstd};
        assert_eq!(encoding(&HeaderMap::new()), Identity);
        for (accepted, used) in [
            ("", Identity),
            ("identity", Identity),
            ("br, deflate", Identity),
            ("gzip", Gzip),
            ("GZip", Gzip),
            ("x-gzip", Gzip),
            ("gzip, deflate, br, zstd", Zstd),
            ("zstd;q=0.5, gzip;q=0.5", Zstd),
            ("zstd;q=0.499, gzip;q=0.5", Gzip),
            ("zstd;q=0, gzip", Gzip),
            ("gzip;q=0", Identity),
            ("gzip; q=0.000 , zstd;q=0", Identity),
            ("*", Zstd),
            ("*;q=0", Identity),
            ("zstd;q=0, *", Gzip),
            ("*;q=0.1, gzip;q=0", Zstd),
            ("gzip;q=0.5, identity", Identity),
            ("gzip, identity", Gzip),
            ("gzip;q=0.001", Gzip),
            ("gzip;q=0.2, identity;q=0.1", Gzip),
            ("identity;q=0, br", Identity),
            ("gzip;q=nonsense", Identity),
        ] {
            assert_eq!(coding(accepted), used, "{accepted:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, "br".parse().expect("a value"));
        headers.append(ACCEPT_ENCODING, "gzip".parse().expect("a value"));
        assert_eq!(encoding(&headers), Gzip, "a header may stand twice");
    }
}
