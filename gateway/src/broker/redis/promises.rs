//! Whatever Redis says on whatever channel: it goes one way, and what comes of it is well formed.

use super::{
    link::{Signals, route},
    names::Names,
};
use crate::{
    broker::{
        Sink,
        announcement::{Announced, decode, encode},
    },
    channel::Channel,
    hub,
    position::Position,
    promises,
};
use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use std::sync::{Mutex, atomic::AtomicU64};

/// The bound of an event's content here: near enough for both sides of it to be reached.
const MAX_EVENT_BYTES: usize = 200;

/// Which way a message went.
#[derive(Debug, Default)]
struct Ways(Mutex<Went>);

#[derive(Debug, Default)]
struct Went {
    announced: Vec<(String, Announced)>,
    control: Vec<Bytes>,
}

impl Sink for Ways {
    fn subscribed(&self, channel: &Channel) {
        panic!("nobody subscribed to {channel}");
    }

    fn announced(&self, channel: &str, announced: Announced) {
        self.0.lock().expect("no panic before").announced.push((channel.to_owned(), announced));
    }

    fn cut(&self, _: &mut dyn Iterator<Item = &Channel>) {
        panic!("nothing was cut");
    }

    fn control(&self, message: Bytes) {
        self.0.lock().expect("no panic before").control.push(message);
    }

    fn reachable(&self, state: Result<(), String>) {
        panic!("{state:?}");
    }
}

/// A message of any bytes on a channel of any name.
pub fn message(name: &[u8], payload: &[u8]) {
    let names = Names::new("sluice:");
    let (control, probe) = (names.control(), names.probe("replica"));
    let ways = Ways::default();
    let push = PushInfo {
        kind: PushKind::Message,
        data: vec![Value::BulkString(name.to_vec()), Value::BulkString(payload.to_vec())],
    };
    route(push, &names, &control, &probe, MAX_EVENT_BYTES, &ways, &Signals::default(), &AtomicU64::new(0));
    let Went { announced, control: controls } = ways.0.into_inner().expect("no panic before");
    let ours = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix("sluice:"));
    match ours {
        Some("$control") => {
            assert!(announced.is_empty());
            assert_eq!(controls, [payload], "a message between replicas arrives as it is, once");
            hub::promises::control(payload);
        }
        Some("$probe.replica") => assert!(announced.is_empty() && controls.is_empty()),
        Some(channel) => {
            assert!(controls.is_empty());
            let [(named, announced)] = announced.as_slice() else { panic!("{announced:?} for one message") };
            assert_eq!(named, channel);
            hub::promises::announced(announced);
            check(announced, payload);
        }
        None => assert!(announced.is_empty() && controls.is_empty(), "{name:?} is none of ours"),
    }
}

/// An event is one event to every client, and says again what it said.
fn check(announced: &Announced, payload: &[u8]) {
    let channel = Channel::new("a.b").expect("a name");
    let again = |at: Position, prev: u64, event| decode(encode(at, prev, event), 0);
    match announced {
        Announced::Entry { at, prev, event } => {
            promises::event(&channel, Some((*at, *prev)), event);
            let Announced::Entry { at: at_again, prev: prev_again, event: event_again } = again(*at, *prev, event)
            else {
                panic!("{announced:?} written again is another thing")
            };
            assert_eq!((at, prev, event), (&at_again, &prev_again, &event_again));
        }
        Announced::Plain { published, event } => {
            promises::event(&channel, None, event);
            let Announced::Plain { event: event_again, .. } = again(Position::new(*published, 0), 0, event) else {
                panic!("{announced:?} written again is another thing")
            };
            assert_eq!(event, &event_again);
        }
        Announced::Raw { event } => {
            assert!(event.len() <= MAX_EVENT_BYTES, "{} bytes", event.len());
            assert_ne!(payload.first(), Some(&0xff));
            promises::event(&channel, None, event);
        }
        Announced::Look | Announced::Unreadable => assert_eq!(payload.first(), Some(&0xff)),
        Announced::Refused(why) => assert!(!why.is_empty() && payload.first() != Some(&0xff)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => prop::sample::select(vec!["sluice:news", "sluice:$control", "sluice:$probe.replica", "sluice:$probe.other", "sluice:", "sluice", ""])
                .prop_map(|name| name.as_bytes().to_vec()),
            1 => any::<Vec<u8>>(),
        ]
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof!["[0-9]{1,20}", Just(u64::MAX.to_string()), Just("0".to_owned()), Just("1".to_owned())];
        prop_oneof![
            any::<Vec<u8>>(),
            (number.clone(), number.clone(), number, "[a-z \r\0:]{0,5}|message", ".*|(\r|\n|\0|data: |id: 1|\r\n){0,8}").prop_map(
                |(micros, seq, prev, kind, data)| {
                    [b"\xff\x01", format!("{micros}-{seq} {prev} {kind}\n{data}").as_bytes()].concat()
                }
            ),
            ("\"(a|\\\\n|\\\\u0000|\\\\ud83d|\\\\\"){0,6}\"|\\{ ?\"a\" : \\[1.50 ,null\\] ?\\}|null|[0-9]{1,30}", "[a-z]{0,5}|\\\\r|\\\\u0000|message", any::<Option<u32>>())
                .prop_map(|(data, kind, retry)| {
                    let retry = retry.map(|retry| format!(",\"retry\":{retry}")).unwrap_or_default();
                    format!("{{\"data\":{data},\"event\":\"{kind}\"{retry}}}").into_bytes()
                }),
            ("count|counted|forget|close_connection|close_user|deny|news|unknown", "[a-z]{0,4}", any::<u64>(), any::<usize>()).prop_map(
                |(kind, text, number, count)| {
                    serde_json::json!({
                        "kind": kind, "from": text, "to": text, "question": number, "channel": text, "id": text, "subject": text,
                        "token": text, "until_ms": number,
                        "counts": { "replicas": count, "connections": count, "subscribers": 1 },
                    })
                    .to_string()
                    .into_bytes()
                }
            ),
            "(\\{\"kind\":|\\[|\"|a){0,200}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_bytes_on_any_channel_go_one_way_and_are_well_formed(name in name(), payload in payload()) {
            super::message(&name, &payload);
        }
    }
}
