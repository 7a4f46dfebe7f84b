//! The admin port: metrics, health, configuration and draining, on a thread and a runtime of its own, so that it answers
//! when everything else is busy. Never to be reached from outside, and never to be driven from a web page: a browser says
//! that a request is a page's, and then it is refused.

use super::{App, body::Body, problem::Problem, route::json};
use crate::lifecycle::Phase;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A shard that has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Serves the admin port from a thread of its own until the process ends.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(listener: TcpListener, app: Arc<App>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serve(listener, app).await,
                Err(error) => tracing::error!(%error, "the admin port cannot be served"),
            }
        });
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run).map(drop)
}

async fn serve(listener: tokio::net::TcpListener, app: Arc<App>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        let service = service_fn(move |request: Request<Incoming>| {
            let refused = refusal(&app, peer.ip(), request.headers());
            let response = refused.map_or_else(|| answer(&app, &request), Problem::into_response);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::trace!(%error, "admin connection ended");
            }
        });
    }
}

/// Whom nothing is answered, whatever it asks for.
fn refusal(app: &App, peer: IpAddr, headers: &HeaderMap) -> Option<Problem> {
    let allowed = &app.config.admin_allow;
    if !allowed.is_empty() && !allowed.contain(peer) {
        return Some(Problem::forbidden("this address is not in a network of `admin_allow`"));
    }
    // A person who types the address has neither; a page that reaches here has one of them (Fetch, `Origin`; Fetch
    // Metadata, `Sec-Fetch-Site`). There is no page of ours: what calls itself one is of a name that was bent to here.
    let is_of_a_page =
        headers.contains_key(ORIGIN) || headers.get_all("sec-fetch-site").iter().any(|site| site.as_bytes() != b"none");
    is_of_a_page.then(|| Problem::forbidden("the admin port is not for web pages"))
}

fn answer(app: &App, request: &Request<Incoming>) -> Response<Body> {
    let (reads, drains) = (matches!(*request.method(), Method::GET | Method::HEAD), request.method() == Method::POST);
    match request.uri().path() {
        "/drain" if drains => {
            app.lifecycle.drain();
            let mut response = json(&json!({ "draining": true, "connections": app.hub.connections() }));
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        "/drain" => Problem::method_not_allowed("POST").into_response(),
        "/metrics" | "/livez" | "/readyz" | "/config" if !reads => {
            Problem::method_not_allowed("GET, HEAD").into_response()
        }
        "/metrics" => {
            app.metrics.tasks.set(i64::try_from(app.hub.tasks()).unwrap_or(i64::MAX));
            app.metrics.ready.set(i64::from(not_ready(app).is_empty()));
            app.metrics.tell_phase(app.lifecycle.phase());
            let mut response = Response::new(Body::from(app.metrics.render()));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/livez" => {
            let stuck = app.hub.stuck_shards(STUCK_AFTER);
            health("live", stuck.into_iter().map(|shard| format!("shard {shard} does not turn")).collect(), None)
        }
        "/readyz" => {
            let reasons = not_ready(app);
            // What part of the broker is away stops only its own channels: no reason to send clients elsewhere.
            let notes = app.hub.away_in_part().filter(|_| reasons.is_empty());
            health("ready", reasons, notes)
        }
        "/config" => json(&app.config.to_json()),
        _ => {
            Problem::not_found("the admin port has /metrics, /livez, /readyz, /config and POST /drain").into_response()
        }
    }
}

/// Why this replica should get no new clients.
fn not_ready(app: &App) -> Vec<String> {
    let mut reasons = Vec::new();
    match app.lifecycle.phase() {
        Phase::Serving => {}
        phase => reasons.push(format!("the gateway is {phase}")),
    }
    if !app.auth.is_open() && !app.auth.denied().is_known() {
        reasons.push("the list of denied tokens has not been read yet".to_owned());
    }
    reasons.extend(app.broker_away().map(|why| format!("the broker cannot be reached: {why}")));
    reasons
}

fn health(name: &str, reasons: Vec<String>, note: Option<String>) -> Response<Body> {
    let good = reasons.is_empty();
    let mut body = json!({ name: good, "reasons": reasons });
    if let Some(note) = note {
        body["notes"] = json!([note]);
    }
    let mut response = json(&body);
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
