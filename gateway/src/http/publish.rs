//! Publishing over HTTP: one event whose data is the body, or many as JSON.
//!
//! A 2xx is only ever said of what the broker has accepted.

use super::{
    App,
    body::Body,
    caller::{Caller, Peer},
    incoming_body::{Sent, receive},
    problem::Problem,
    query::Query,
    rates,
    route::json,
};
use crate::{
    auth::Act,
    broker::{Accepted, Publish, Unavailable, announcement::json_data},
    channel::Channel,
    event::{Event, InvalidEvent},
    position::Position,
    traceparent::{TRACEPARENT, Traceparent},
    traces::Span,
};
use bytes::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json, value::RawValue};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY_BYTES: usize = 128;

/// The answer to one event.
#[derive(serde::Serialize)]
struct Published<'a> {
    channel: &'a Channel,
    position: Option<Position>,
}

/// `POST /channels/{channel}/events` and `POST /broadcast`.
pub(super) async fn one(
    app: &App,
    peer: &Peer,
    caller: &Caller,
    channel: Channel,
    request: Request<Sent>,
    query: &Query,
    span: &mut Span,
) -> Result<Response<Body>, Problem> {
    caller.may(app, Act::Publish, &channel)?;
    rates::publish(app, caller)?;
    let event_type = query.one("event")?.map(str::to_owned);
    let idempotency_key = header_key(request.headers())?;
    // Kept as long as the history is, so without what its buffer has beside.
    let most = app.config.limits.event_bytes.get();
    let publisher = publishers(request.headers());
    let data = Bytes::copy_from_slice(&receive(app, &peer.seat, request, most).await?);
    let event = checked_event(most, event_type.as_deref(), data)?;
    rates::event(app, &channel)?;
    let publish = Publish { channel: channel.clone(), event, idempotency_key };
    match accept(app, vec![publish], span, publisher).await.pop() {
        Some(Ok(Accepted { position, replicated: false, .. })) => {
            let problem = unreplicated(app);
            let mut body = serde_json::to_value(&problem).unwrap_or_default();
            body["channel"] = channel.as_str().into();
            body["position"] = json!(position);
            Ok(problem.with_body(body))
        }
        Some(Ok(accepted)) => Ok(json(&Published { channel: &channel, position: accepted.position })),
        Some(Err(error)) => Err(Problem::broker_unavailable(error.to_string())),
        None => Err(Problem::broker_unavailable("the broker gave no answer")),
    }
}

/// `POST /events`: a JSON object, an array of them, or one a line.
pub(super) async fn batch(
    app: &App,
    peer: &Peer,
    caller: &Caller,
    request: Request<Sent>,
    span: &mut Span,
) -> Result<Response<Body>, Problem> {
    let limits = &app.config.limits;
    rates::publish(app, caller)?;
    let ndjson = is_ndjson(request.headers());
    let request_key = header_key(request.headers())?;
    let publisher = publishers(request.headers());
    let body = receive(app, &peer.seat, request, limits.batch_bytes.get()).await?;
    let items = split(&body, ndjson)?;
    if items.len() > limits.batch_events {
        let most = limits.batch_events;
        return Err(Problem::too_large(format!("{} events in one request, where {most} are allowed", items.len())));
    }

    // What is valid goes to the broker together, and each answer back to its place.
    let mut results: Vec<Option<Value>> = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    let mut taken = Vec::new();
    let alone = items.len() == 1;
    for (nth, item) in items.into_iter().enumerate() {
        match parse_item(app, caller, item, || number_key(request_key.as_deref(), nth, alone)) {
            Ok(publish) => {
                taken.push((results.len(), publish.channel.clone(), publish));
                results.push(None);
            }
            Err(wrong) => {
                let (channel, problem) = *wrong;
                results.push(Some(json!({ "channel": channel, "problem": &problem })));
                problems.push(problem);
            }
        }
    }
    let (places, publishes): (Vec<_>, Vec<_>) =
        taken.into_iter().map(|(place, channel, publish)| ((place, channel), publish)).unzip();
    let mut accepted = 0;
    for ((place, channel), answer) in places.into_iter().zip(accept(app, publishes, span, publisher).await) {
        results[place] = Some(match answer {
            Ok(Accepted { position, replicated: false, .. }) => {
                let problem = unreplicated(app);
                let result = json!({ "channel": channel, "position": position, "problem": &problem });
                problems.push(problem);
                result
            }
            Ok(Accepted { position, .. }) => {
                accepted += 1;
                json!({ "channel": channel, "position": position })
            }
            Err(error) => {
                let problem = Problem::broker_unavailable(error.to_string());
                let result = json!({ "channel": channel, "problem": &problem });
                problems.push(problem);
                result
            }
        });
    }
    let results: Vec<_> = results.into_iter().flatten().collect();
    Ok(match problems.into_iter().next() {
        None => json(&json!({ "results": results })),
        Some(_) if accepted > 0 => {
            let mut response = json(&json!({ "results": results }));
            *response.status_mut() = StatusCode::MULTI_STATUS;
            response
        }
        Some(first) => {
            let mut body = serde_json::to_value(&first).unwrap_or_default();
            body["results"] = results.into();
            first.with_body(body)
        }
    })
}

/// An event that is out, and may be lost with its master all the same.
fn unreplicated(app: &App) -> Problem {
    let wanted = app.config.redis.wait_replicas;
    Problem::broker_unavailable(format!(
        "the event has its position, but is not known to be on {wanted} replicas of redis yet: send it again with the same \
         Idempotency-Key, which waits again and publishes nothing twice"
    ))
}

/// The publisher's own span, if somebody keeps its trace: that goes on whether or not this gateway says anything in it.
fn publishers(headers: &HeaderMap) -> Option<Traceparent> {
    Traceparent::parse(headers.get(TRACEPARENT)?.to_str().ok()?).filter(Traceparent::is_sampled)
}

async fn accept(
    app: &App,
    mut batch: Vec<Publish>,
    within: &Span,
    publisher: Option<Traceparent>,
) -> Vec<Result<Accepted, Unavailable>> {
    if batch.is_empty() {
        return Vec::new();
    }
    let one = (batch.len() == 1).then(|| &batch[0].channel);
    let mut span = app.hub.traces().send(within, one, batch.len());
    let traceparent = span.traceparent().or(publisher);
    if traceparent.is_some() {
        for publish in &mut batch {
            publish.event.set_traceparent(traceparent);
        }
    }
    let timer = app.metrics.publish_seconds.start_timer();
    let answers = app.broker.publish(batch).await;
    timer.observe_duration();
    if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
        span.failed(error.to_string());
    }
    let published = answers.iter().flatten().filter(|accepted| !accepted.repeated).count();
    app.metrics.published_http.inc_by(published as u64);
    let failed = answers.iter().filter(|answer| !answer.as_ref().is_ok_and(|accepted| accepted.replicated)).count();
    app.metrics.publish_failed.inc_by(failed as u64);
    answers
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]
        .iter()
        .any(|name| kind.eq_ignore_ascii_case(name))
}

/// The key of the whole request, if it has one.
fn header_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    checked_key(key.to_str().map_err(|_| invalid_key())?.to_owned()).map(Some)
}

/// What the key of a whole request is for its `nth` event: that of a single one, and numbered for many, so that a
/// request that is repeated as it was publishes nothing twice.
fn number_key(key: Option<&str>, nth: usize, alone: bool) -> Result<Option<String>, Problem> {
    let Some(key) = key else { return Ok(None) };
    checked_key(if alone { key.to_owned() } else { format!("{key}-{}", nth + 1) }).map(Some)
}

/// The events of a request, still as text: what is wrong within one of them concerns only that one.
pub(super) fn split(body: &[u8], ndjson: bool) -> Result<Vec<&[u8]>, Problem> {
    let lines =
        || body.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    if ndjson {
        return Ok(lines());
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::invalid_event(InvalidEvent::NotUtf8(error.valid_up_to()).to_string()))?
        .trim();
    if text.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text)
            .map_err(|error| Problem::invalid_request(format!("the body is no JSON array of events: {error}")))?;
        return Ok(items.into_iter().map(|item| item.get().as_bytes()).collect());
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(item) => Ok(vec![item.get().as_bytes()]),
        // Lines of JSON whose sender did not say so.
        Err(_) if lines().len() > 1 && lines().iter().all(|line| line.starts_with(b"{")) => Ok(lines()),
        Err(error) => Err(Problem::invalid_request(format!(
            "the body is a JSON object, a JSON array or a JSON object a line, and this is none of them: {error}"
        ))),
    }
}

/// One event as its sender wrote it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item<'a> {
    channel: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    idempotency_key: Option<String>,
}

impl<'a> Item<'a> {
    pub(super) fn read(item: &'a [u8]) -> Result<(Channel, Self), ItemProblem> {
        let text = std::str::from_utf8(item).map_err(|error| {
            let detail = InvalidEvent::NotUtf8(error.valid_up_to()).to_string();
            Box::new((None, Problem::invalid_event(detail)))
        })?;
        let item: Self = serde_json::from_str(text).map_err(|error| {
            let named = serde_json::from_str::<Value>(text).ok();
            let channel = named.and_then(|value| Some(value.get("channel")?.as_str()?.to_owned()));
            let detail = format!("an event is {{\"channel\", \"event\", \"data\", \"idempotency_key\"}}: {error}");
            Box::new((channel, Problem::invalid_event(detail)))
        })?;
        match Channel::new(&item.channel) {
            Ok(channel) => Ok((channel, item)),
            Err(error) => Err(Box::new((Some(item.channel), Problem::invalid_channel(error.to_string())))),
        }
    }

    /// The event, with data of at most `most` bytes.
    pub(super) fn event(&self, most: usize) -> Result<Event, Problem> {
        let data = json_data(self.data).map_err(|error| Problem::invalid_event(error.to_string()))?;
        checked_event(most, self.event.as_deref(), data)
    }
}

/// What is wrong with one event, and its channel as far as it is known.
type ItemProblem = Box<(Option<String>, Problem)>;

/// Reads one event that `caller` may publish.
fn parse_item(
    app: &App,
    caller: &Caller,
    item: &[u8],
    implied_key: impl FnOnce() -> Result<Option<String>, Problem>,
) -> Result<Publish, ItemProblem> {
    let (channel, mut item) = Item::read(item)?;
    let wrong = |problem| Box::new((Some(channel.to_string()), problem));
    caller.may(app, Act::Publish, &channel).map_err(wrong)?;
    let own_key = item.idempotency_key.take().map(checked_key).transpose().map_err(wrong)?;
    let idempotency_key = if own_key.is_some() { own_key } else { implied_key().map_err(wrong)? };
    let event = item.event(app.config.limits.event_bytes.get()).map_err(wrong)?;
    rates::event(app, &channel).map_err(wrong)?;
    Ok(Publish { channel, event, idempotency_key })
}

fn checked_event(most: usize, event_type: Option<&str>, data: Bytes) -> Result<Event, Problem> {
    if data.len() > most {
        return Err(Problem::too_large(format!("an event of {} bytes, where {most} are allowed", data.len())));
    }
    Event::new(event_type, data).map_err(|error| Problem::invalid_event(error.to_string()))
}

fn checked_key(key: String) -> Result<String, Problem> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(key) } else { Err(invalid_key()) }
}

fn invalid_key() -> Problem {
    Problem::invalid_request(format!("an idempotency key is 1 to {MAX_KEY_BYTES} bytes of visible ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_an_array_or_lines() {
        let split = |text: &'static str, ndjson| {
            let items = split(text.as_bytes(), ndjson).map_err(|problem| problem.detail)?;
            Ok::<_, String>(items.into_iter().map(|item| std::str::from_utf8(item).expect("UTF-8")).collect::<Vec<_>>())
        };
        assert_eq!(split(" {\"a\":\n1} ", false), Ok(vec!["{\"a\":\n1}"]));
        assert_eq!(split("[{\"a\":1}, 2]", false), Ok(vec!["{\"a\":1}", "2"]));
        assert_eq!(split("{\"a\":1}\n\n{\"a\":2}\r\n", false), Ok(vec!["{\"a\":1}", "{\"a\":2}"]));
        assert_eq!(split("{\"a\":1}\nbroken\n", true), Ok(vec!["{\"a\":1}", "broken"]));
        assert_eq!(split("[]", false), Ok(vec![]));
        for bad in ["", "x", "{\"a\":1} x", "[1"] {
            assert!(split(bad, false).is_err(), "{bad}");
        }
    }
}
