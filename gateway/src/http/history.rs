//! A channel's history as JSON, and forgetting it.

use super::{App, body::Body, caller::Caller, problem::Problem, query::Query, route::json};
use crate::{auth::Act, channel::Channel, hub::NoAnswer, position::Position};
use hyper::{Response, StatusCode};

/// Events in one answer unless asked otherwise, and at the most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(serde::Serialize)]
struct History<'a> {
    channel: &'a Channel,
    events: Vec<Kept<'a>>,
    next: Option<Position>,
}

#[derive(serde::Serialize)]
struct Kept<'a> {
    position: Position,
    event: &'a str,
    data: &'a str,
}

/// `GET /channels/{channel}/events?since=&after=&limit=`: events in order from `since` (or the earliest), or those after
/// a position; `next` is the position to go on `after`, null at the end. Large events come fewer at a time.
pub(super) async fn read(
    app: &App,
    caller: &Caller,
    channel: &Channel,
    query: &Query,
) -> Result<Response<Body>, Problem> {
    if !app.auth.is_admin(&caller.identity) {
        caller.may(app, Act::Read, channel)?;
    }
    let unavailable = |error: crate::broker::Unavailable| Problem::broker_unavailable(error.to_string());
    let limit = match query.one("limit")? {
        None => LIMIT,
        Some(text) => text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
            Problem::invalid_request(format!("`limit` is a number from 1 to {MAX_LIMIT}, not {text:?}"))
        })?,
    };
    let after: Option<Position> = match query.one("after")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| Problem::invalid_request(format!("`after`: {error}")))?),
    };
    let after = match (after, query.since()?) {
        (Some(_), Some(_)) => return Err(Problem::invalid_request("give `after` or `since`, not both")),
        (Some(after), None) => after,
        (None, since) => {
            let since = since.unwrap_or(crate::broker::Since::Earliest);
            app.broker.place(channel, since).await.map_err(unavailable)?
        }
    };
    let answer = app.hub.history(channel, after, limit).await.map_err(|why| match why {
        NoAnswer::NoRoom => {
            app.metrics.refused.with_label_values(&["replays"]).inc();
            Problem::overloaded("others who read history take all of `limits.replay_bytes` just now")
        }
        NoAnswer::Unavailable(error) => unavailable(error),
    })?;
    let next = answer.entries.last().map(|entry| entry.at).filter(|_| !answer.complete);
    let events = answer.entries.iter().filter(|entry| entry.fork.is_none()).map(|entry| Kept {
        position: entry.at,
        event: entry.event.event_type().unwrap_or(crate::event::DEFAULT_TYPE),
        data: entry.event.data(),
    });
    let response = json(&History { channel, events: events.collect(), next });
    // What it takes is taken until the client has it.
    Ok(response.map(|body| body.holding(answer.share)))
}

/// `DELETE /channels/{channel}/events`.
pub(super) async fn forget(app: &App, caller: &Caller, channel: &Channel) -> Result<Response<Body>, Problem> {
    caller.must_be_admin(app)?;
    let unavailable = |error: crate::broker::Unavailable| Problem::broker_unavailable(error.to_string());
    app.broker.forget(channel).await.map_err(unavailable)?;
    app.hub.cluster().forget(&app.hub, channel).await.map_err(unavailable)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
