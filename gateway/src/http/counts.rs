//! How many connections and subscribers there are, here and in the whole cluster, and closing some of them.

use super::{
    App,
    body::Body,
    caller::Caller,
    problem::Problem,
    query::{self, Query},
    route::json,
};
use crate::{
    auth::denied::{MAX_ID_BYTES, now_ms},
    channel::Channel,
    hub::Target,
};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// How long a token is denied unless asked otherwise, and at the most.
const DENIED_FOR: Duration = Duration::from_secs(30 * 86_400);
const MAX_DENIED_FOR: Duration = Duration::from_secs(366 * 86_400);

/// `GET /connections`. What the cluster has is `null` while the broker is away: nobody can know it then.
pub(super) async fn connections(app: &App, caller: &Caller) -> Result<Response<Body>, Problem> {
    caller.must_be_admin(app)?;
    let cluster = app.hub.cluster().count(&app.hub, None).await;
    Ok(json(&json!({
        "replica": app.hub.cluster().replica(),
        "replicas": cluster.map(|counts| counts.replicas),
        "connections": { "replica": app.hub.connections(), "cluster": cluster.map(|counts| counts.connections) },
        "channels": { "replica": app.hub.channels() },
    })))
}

/// `GET /channels/{channel}`.
pub(super) async fn channel(app: &App, caller: &Caller, channel: &Channel) -> Result<Response<Body>, Problem> {
    caller.must_be_admin(app)?;
    let (here, cluster, ends) = tokio::join!(
        app.hub.subscribers(channel),
        app.hub.cluster().count(&app.hub, Some(channel)),
        app.broker.ends(channel),
    );
    let ends = ends.map_err(|error| Problem::broker_unavailable(error.to_string()))?;
    // Before the first event there is an identity, but no position that an event has.
    let last = ends.map(|ends| ends.last).filter(|last| last.seq > 0);
    Ok(json(&json!({
        "channel": channel,
        "subscribers": { "replica": here, "cluster": cluster.map(|counts| counts.subscribers) },
        "first": ends.and_then(|ends| ends.first),
        "last": last,
    })))
}

/// Closes connections anywhere in the cluster; whoever has none that is meant does nothing.
pub(super) async fn close(app: &App, caller: &Caller, target: Target) -> Result<Response<Body>, Problem> {
    caller.must_be_admin(app)?;
    let closed = app.hub.cluster().close(&app.hub, target).await;
    closed.map_err(|error| Problem::broker_unavailable(error.to_string()))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `DELETE /tokens/{id}?for=`: closes what the token has let in, and lets nothing in with it any more, on any replica.
pub(super) async fn deny(app: &App, caller: &Caller, id: &str, query: &Query) -> Result<Response<Body>, Problem> {
    if id.len() > MAX_ID_BYTES {
        return Err(Problem::invalid_request(format!("a token's id has at most {MAX_ID_BYTES} bytes")));
    }
    let long = match query.one("for")? {
        None => DENIED_FOR,
        Some(text) => {
            query::duration(text).filter(|long| *long <= MAX_DENIED_FOR && !long.is_zero()).ok_or_else(|| {
                Problem::invalid_request(format!("`for` is a duration of at most 366d, such as 24h, not {text:?}"))
            })?
        }
    };
    let until_ms = now_ms().saturating_add(u64::try_from(long.as_millis()).unwrap_or(u64::MAX));
    close(app, caller, Target::Token { id: id.to_owned(), until_ms }).await
}
