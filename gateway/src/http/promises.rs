//! What a request asks for, and what a body publishes: read as it was written, or refused with a reason.

pub use super::brief::promises::whole_request;
use super::{
    asked::Asked,
    problem::Problem,
    publish::{Item, split},
    query::{Query, duration},
    route::Resource,
};
use crate::{
    auth::Identity,
    channel::{ALL, Channel},
    hub::connection::Start,
    promises,
    sse::cursor::{Cursor, Found},
};
use hyper::{
    HeaderMap, Uri,
    header::{ACCEPT, HeaderValue},
};

/// So many channels may be asked for here.
const MOST: usize = 4;
/// So long may an event be here.
const MAX_EVENT_BYTES: usize = 200;

/// A request's target, and two of its headers as the client sent them.
pub fn request(target: &str, last_event_id: &[u8], accept: &[u8]) {
    let Ok(uri) = target.parse::<Uri>() else { return };
    let resource = Resource::of(uri.path());
    if let Some(resource) = &resource {
        assert!(resource.methods().ends_with("OPTIONS"));
    }
    if let Some(Resource::Channel(name) | Resource::ChannelEvents(name)) = &resource {
        promises::name(name);
        // However many of its characters are escaped, it is the same name.
        let escaped = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let events = format!("/channels/{escaped}/events");
        assert_eq!(Resource::of(&events), Some(Resource::ChannelEvents(name.clone())));
    }
    let query = match Query::parse(uri.query()) {
        Ok(query) => query,
        Err(problem) => return check(&problem),
    };
    if let Ok(Some(text)) = query.one("wait") {
        let _ = duration(text);
    }
    if let Ok(Some(text)) = query.one("after") {
        promises::position(text);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in [("last-event-id", last_event_id), (ACCEPT.as_str(), accept)] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            headers.insert(name, value);
        }
    }
    let asked = match Asked::of(&headers, &query, &Identity::default(), MOST, |_| Ok(())) {
        Ok(asked) => asked,
        Err(problem) => return check(&problem),
    };
    let names: Vec<_> = asked.channels.iter().map(|(channel, _)| channel.as_str()).collect();
    assert!(names.len() <= MOST + 1 && names.contains(&ALL), "{names:?}");
    assert!(names.iter().all(|name| *name == ALL || query.all("channel").any(|given| given == *name)), "{names:?}");
    assert!(query.all("channel").all(|name| names.contains(&name)), "none is left out silently: {names:?}");
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "{names:?}");
    let given = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let given = given.or_else(|| query.all("lastEventId").next().map(str::to_owned)).filter(|text| !text.is_empty());
    let since = query.since().unwrap_or_default();
    for (channel, start) in
        asked.channels.iter().filter(|(channel, _)| query.all("channel").any(|c| c == channel.as_str()))
    {
        let found = given.as_deref().map(|text| Cursor::parse(text).find(channel));
        match (found, start) {
            (Some(Found::At(there)), Start::After(here)) => assert_eq!(there, *here),
            (Some(Found::Unreadable), Start::Unreadable) => {}
            (Some(Found::New) | None, Start::Live) => assert_eq!(since, None),
            (Some(Found::New) | None, Start::Since(_)) => assert_ne!(since, None),
            (found, start) => panic!("{channel}: {found:?} became {start:?}"),
        }
    }
    if let Some(text) = given {
        promises::cursor(&text);
    }
}

/// A refusal says why, and is the client's fault.
fn check(problem: &Problem) {
    assert!((400..500).contains(&problem.status) && !problem.detail.is_empty(), "{problem:?}");
}

/// The body of a request that publishes.
pub fn publish_body(body: &[u8], ndjson: bool) {
    let items = match split(body, ndjson) {
        Ok(items) => items,
        Err(problem) => return check(&problem),
    };
    // What stands between events is nothing but white space, commas and brackets: so nothing of a body is passed over.
    let kept: usize = items.iter().map(|item| item.len()).sum();
    let between = body.iter().filter(|b| b.is_ascii_whitespace() || b"[],".contains(b)).count();
    let unicode_space = std::str::from_utf8(body).map_or(0, |text| text.len() - text.trim().len());
    assert!(kept <= body.len() && body.len() <= kept + between + unicode_space, "{items:?}");
    for item in items {
        let (channel, item) = match Item::read(item) {
            Ok(read) => read,
            Err(wrong) => {
                check(&wrong.1);
                continue;
            }
        };
        assert!(Channel::new(channel.as_str()).is_ok());
        promises::name(channel.as_str());
        match item.event(MAX_EVENT_BYTES) {
            Ok(event) => {
                assert!(event.data().len() <= MAX_EVENT_BYTES);
                promises::event(&channel, None, &event);
            }
            Err(problem) => check(&problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_asks_for_what_it_says(
            path in "/(events|channels/[a-z%/0-9A-F$]{0,8}(/events)?|users/[a-z%F]{0,5}/connections|[!-~]{0,9})",
            query in prop::collection::vec(
                "channel=(news|a|b|c|%24all|\\$all|\\$user\\.1|[!-~]{0,6}|%[0-9a-fA-F]{2})|since=(earliest|last:[0-9]{0,3}|[0-9.]{1,22}(ms|s|m|h|d)?|-?[0-9]{4,6}-0[0-9]-31T12:00:00(Z|\\+01:00|%2B23:59))|lastEventId=(1f9l9hg5\\.[a-z0-9]{1,13}-[a-z0-9]{1,13},?~?|[!-~]{0,9})|(hello|envelope)=[012]|(wait|after|heartbeat)=[!-~]{0,8}",
                0..7,
            ),
            id in "|1f9l9hg5\\.[a-z0-9]{1,13}-[a-z0-9]{1,13}[,~]?|[ -~é]{0,12}",
            accept in "|text/event-stream|application/json;q=[0-9.e-]{1,4}|\\*/\\*|[ -~]{0,20}",
        ) {
            super::request(&format!("{path}?{}", query.join("&")), id.as_bytes(), accept.as_bytes());
        }

        #[test]
        fn any_target_is_a_request_or_a_problem(target in "/.*", id: Vec<u8>, accept: Vec<u8>) {
            super::request(&target, &id, &accept);
        }

        #[test]
        fn a_body_is_its_events_and_nothing_of_it_is_passed_over(
            pieces in prop::collection::vec(
                "\\{\"channel\":\"(news|\\$all|a b|[a-z\\\\\"]{0,3})\",(\"event\":\"(x|\\\\n|\\\\u0000|message)\",)?\"data\":(1|\"[a-z]{0,3}(\\\\n|\\\\r|\\\\ud800)?\"|\\{\"a\" : [0-9.e]{1,4}\\})(,\"idempotency_key\":\"k\")?\\}|[\\[\\]{},\" a]{0,3}",
                0..5,
            ),
            between in "\n|\r\n|,|, | |\u{a0}",
            array: bool, ndjson: bool,
        ) {
            let text = pieces.join(&between);
            let text = if array { format!("[{text}]") } else { text };
            super::publish_body(text.as_bytes(), ndjson);
        }

        #[test]
        fn any_body_is_events_or_a_problem(body: Vec<u8>, ndjson: bool) {
            super::publish_body(&body, ndjson);
        }
    }
}
