//! Publishing straight to Redis: for now with a plain `PUBLISH`, which is delivered live and has no position.
//!
//! A `PUBLISH` that may have arrived is never repeated, as nothing would recognise the second: only what has certainly
//! not been taken is tried again, which is a connection that could not be made.

use super::{Outcome, Outgoing, Refused};
use crate::backoff::Retry;
use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use serde::Serialize;
use sluice_gateway::event::Event;
use std::{borrow::Cow, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one pipeline, which is at most about a mebibyte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct RedisTarget {
    client: Client,
    connection: Option<MultiplexedConnection>,
    prefix: String,
    retry_for: Duration,
}

impl RedisTarget {
    pub(super) fn new(url: &str, prefix: &str, retry_for: Duration) -> Result<Self, String> {
        let client = Client::open(url).map_err(|e| format!("--redis: {e}; an example is redis://127.0.0.1:6379"))?;
        Ok(Self { client, connection: None, prefix: prefix.to_owned(), retry_for })
    }

    pub(super) async fn publish(&mut self, events: &[Outgoing]) -> Vec<Outcome> {
        let mut connection = match self.connected().await {
            Ok(connection) => connection,
            Err(error) => return vec![Err(refused(&error)); events.len()],
        };
        let mut pipeline = redis::pipe();
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            if event.idempotency_key.is_some() {
                let reason = "a plain PUBLISH to Redis cannot keep an idempotency key: publish through a gateway";
                outcomes.push(Err(Refused { reason: reason.into(), is_final: false }));
                continue;
            }
            let name = format!("{}{}", self.prefix, event.channel);
            pipeline.cmd("PUBLISH").arg(name).arg(payload(&event.event).as_ref()).ignore();
            outcomes.push(Ok(None));
        }
        if let Err(error) = pipeline.query_async::<()>(&mut connection).await {
            self.connection = None;
            outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(refused(&error)));
        }
        outcomes
    }

    async fn connected(&mut self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let mut retry = Retry::new(self.retry_for);
        loop {
            match self.client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return Ok(self.connection.insert(connection).clone()),
                Err(error) if error.is_io_error() && retry.wait(None).await => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn refused(error: &RedisError) -> Refused {
    Refused { reason: format!("Redis: {error}"), is_final: true }
}

/// What a gateway reads from a plain `PUBLISH`: the data, or a JSON object of an event. Data that would be taken for
/// such an object is wrapped in one, so that it arrives as it is.
fn payload(event: &Event) -> Cow<'_, str> {
    #[derive(Serialize)]
    struct Wrapped<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
        data: &'a str,
    }
    if event.event_type().is_none() && !looks_like_an_event(event.data()) {
        return event.data().into();
    }
    let wrapped = Wrapped { event: event.event_type(), data: event.data() };
    // Strings alone always serialise.
    serde_json::to_string(&wrapped).unwrap_or_default().into()
}

fn looks_like_an_event(data: &str) -> bool {
    data.trim_start().starts_with('{')
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(data).is_ok_and(|object| {
            object.contains_key("data") && object.keys().all(|name| matches!(name.as_str(), "event" | "data" | "retry"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn data_goes_as_it_is_unless_it_would_be_misread() {
        let of = |event_type, data: &'static str| {
            let event = Event::new(event_type, Bytes::from_static(data.as_bytes())).expect("an event");
            payload(&event).into_owned()
        };
        for plain in ["", "x", "{", "{}", r#"{"event":"a"}"#, r#"{"data":1,"id":2}"#, "[1]", "{\"data\":"] {
            assert_eq!(of(None, plain), plain);
        }
        assert_eq!(of(None, r#" {"data":1}"#), r#"{"data":" {\"data\":1}"}"#);
        assert_eq!(
            of(None, r#"{"data":1,"retry":2,"event":"a"}"#),
            r#"{"data":"{\"data\":1,\"retry\":2,\"event\":\"a\"}"}"#
        );
        assert_eq!(of(Some("add"), "x\ny"), r#"{"event":"add","data":"x\ny"}"#);
    }
}
