//! How many connections and subscribers there are, here and in the whole cluster, and closing some of them.

use super::{App, body::Body, problem::Problem, route::json};
use crate::{channel::Channel, hub::Target};
use hyper::{Response, StatusCode};
use serde_json::json;

/// `GET /connections`. What the cluster has is `null` while the broker is away: nobody can know it then.
pub(super) async fn connections(app: &App) -> Response<Body> {
    let cluster = app.hub.cluster().count(&app.hub, None).await;
    json(&json!({
        "replica": app.hub.cluster().replica(),
        "replicas": cluster.map(|counts| counts.replicas),
        "connections": { "replica": app.hub.connections(), "cluster": cluster.map(|counts| counts.connections) },
        "channels": { "replica": app.hub.channels() },
    }))
}

/// `GET /channels/{channel}`.
pub(super) async fn channel(app: &App, channel: &Channel) -> Result<Response<Body>, Problem> {
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
pub(super) async fn close(app: &App, target: Target) -> Result<Response<Body>, Problem> {
    let closed = app.hub.cluster().close(&app.hub, target).await;
    closed.map_err(|error| Problem::broker_unavailable(error.to_string()))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
