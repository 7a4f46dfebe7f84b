//! `GET /events`: checks what is asked for, and hands the stream to a shard.

use super::{
    App,
    asked::{Asked, given_cursor},
    body::Body,
    caller::Caller,
    connection::{Handoff, Transport},
    cors,
    incoming_body::Sent,
    negotiate::{self, Form},
    poll,
    problem::Problem,
    query::Query,
    rates, raw,
};
use crate::{
    auth::{Act, Identity},
    channel::Channel,
    hub::{
        Guest, Permit, Refused,
        connection::{Greeting, Heartbeat, Open, Outlet, Start},
    },
    sse::{
        compress::{Encoding, Wire},
        outbox,
    },
    traces::Span,
};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, ORIGIN, VARY},
};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

/// How long an answer's head waits for the subscriptions to be in force.
const START_WITHIN: Duration = Duration::from_secs(3);

/// What a client asked for.
pub(super) struct Wanted {
    pub(super) id: Arc<str>,
    pub(super) form: Form,
    pub(super) wire: Wire,
    pub(super) heartbeat: Heartbeat,
    pub(super) greeting: Greeting,
    pub(super) channels: Vec<(Channel, Start)>,
    pub(super) caller: Caller,
}

pub(super) async fn stream(
    app: &Arc<App>,
    transport: Transport,
    caller: &Caller,
    request: &Request<Sent>,
    query: &Query,
    span: &mut Span,
) -> Result<Response<Body>, Problem> {
    let wanted = wanted(app, caller, request.headers(), query)?;
    if span.is_kept() {
        span.set("sluice.connection.id", wanted.id.to_string());
        span.set("sluice.channels", i64::try_from(wanted.channels.len()).unwrap_or(i64::MAX));
        span.set("sluice.resumes", wanted.channels.iter().any(|(_, start)| matches!(start, Start::After(_))));
    }
    if request.method() == Method::HEAD {
        return Ok(head(app, &wanted));
    }
    if let Err(problem) = rates::connect(app, caller) {
        return come_back(app, request.headers(), problem);
    }
    // Whoever cannot go elsewhere is let in, and begins when the broker is back.
    if negotiate::refuse_with(request.headers()).is_some()
        && let Some(why) = app.broker_away()
    {
        app.metrics.refused.with_label_values(&["broker"]).inc();
        return come_back(app, request.headers(), Problem::broker_unavailable(why));
    }
    let guest = Guest { address: caller.address, subject: caller.identity.subject.clone() };
    let permit = match app.hub.admit(guest, wanted.channels.iter().map(|(channel, _)| channel)) {
        Ok(permit) => permit,
        Err(refused) => return refuse(app, request.headers(), refused),
    };
    if wanted.form == Form::Poll {
        let given = given_cursor(request.headers(), query)?;
        return poll::answer(app, wanted, permit, query, given.as_deref()).await;
    }
    match transport {
        Transport::Socket => {
            let mut head = head(app, &wanted);
            cors::add(&app.config, request.headers().get(ORIGIN), head.headers_mut());
            let head = raw_head(&head);
            let mut span = std::mem::take(span);
            span.answered(StatusCode::OK);
            Ok(Response::new(Body::Leaves(Box::new(Handoff { wanted, permit, head, span }))))
        }
        Transport::Hyper => {
            let mut response = head(app, &wanted);
            *response.body_mut() = body_stream(app, wanted, permit).await;
            Ok(response)
        }
    }
}

/// A stream that hyper writes; returns once its subscriptions are in force.
pub(super) async fn body_stream(app: &App, wanted: Wanted, permit: Permit) -> Body {
    let ticket = Arc::new(OnceLock::new());
    let shard = app.hub.least_loaded();
    let (outbox, body) = outbox::outbox(app.hub.outbox_signals(shard, Arc::clone(&ticket)));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let outlet = Outlet::Body { outbox, ticket };
    app.hub.open(shard, open(app, wanted, permit, outlet, Bytes::new(), Some(started)));
    let _ = tokio::time::timeout(START_WITHIN, has_started).await;
    Body::Stream(body)
}

/// What a shard needs to own the stream.
pub(super) fn open(
    app: &App,
    wanted: Wanted,
    permit: Permit,
    outlet: Outlet,
    head: Bytes,
    started: Option<tokio::sync::oneshot::Sender<()>>,
) -> Open {
    let Wanted { id, wire, heartbeat, greeting, channels, caller, .. } = wanted;
    let span = tracing::debug_span!("connection", %id, address = %caller.address, channels = channels.len());
    span.in_scope(|| tracing::debug!("stream opened"));
    // Up to a fifth sooner, so that streams that came together do not end together.
    let ends = app.config.stream.max_age.map(|age| Instant::now() + age.mul_f64(1.0 - fastrand::f64() / 5.0));
    Open {
        id,
        subject: caller.identity.subject.clone(),
        token_id: caller.identity.token_id.clone(),
        outlet,
        head,
        wire,
        heartbeat,
        greeting,
        channels,
        ends,
        expires: expires(&caller.identity),
        started,
        span,
        permit,
    }
}

fn wanted(app: &App, caller: &Caller, headers: &HeaderMap, query: &Query) -> Result<Wanted, Problem> {
    let most = app.config.limits.channels_per_connection;
    let asked = Asked::of(headers, query, &caller.identity, most, |channel| caller.may(app, Act::Read, channel))?;
    if caller.identity.expires.is_some_and(|expires| expires <= SystemTime::now()) {
        // A stream ends when its token does, so it does not begin after that, however clocks may differ.
        return Err(Problem::invalid_token("the token has expired"));
    }
    let Asked { form, format, heartbeat, greeting, mut channels } = asked;
    let id = app.connection_id();
    if greeting == Greeting::Hello {
        // Nobody else is told the id, so nobody could publish to it.
        channels.push((Channel::of_connection(&id), Start::Live));
    }
    let encoding = if may_compress(app, form) { negotiate::encoding(headers) } else { Encoding::Identity };
    let wire = Wire::new(format, encoding);
    Ok(Wanted { id, form, wire, heartbeat, greeting, channels, caller: caller.clone() })
}

/// When the stream's token expires.
fn expires(identity: &Identity) -> Option<Instant> {
    let left = identity.expires?.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

/// Whether the client has a say in how its answer is encoded. A poll's answer is short.
fn may_compress(app: &App, form: Form) -> bool {
    app.config.stream.compression && form != Form::Poll
}

/// The head of a stream's answer (and all of the answer to HEAD).
fn head(app: &App, wanted: &Wanted) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let kind = match wanted.form {
        Form::Sse => "text/event-stream",
        Form::Ndjson => "application/x-ndjson",
        Form::Poll => "application/json",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if may_compress(app, wanted.form) {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if wanted.wire.is_compressed() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(wanted.wire.encoding().as_str()));
    }
    response
}

/// The same as HTTP/1.1 has it. The stream ends with its connection: no length, no chunks, so that the bytes of a frame
/// are the same for everyone.
fn raw_head(head: &Response<Body>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    raw::head(head, &[("connection", "close")], &mut out);
    out.into()
}

/// What must be retried. An EventSource gives up for ever on any status but 200, so it gets one that ends at once.
fn refuse(app: &App, headers: &HeaderMap, refused: Refused) -> Result<Response<Body>, Problem> {
    app.metrics.refused.with_label_values(&[refused.as_str()]).inc();
    let problem = if refused.is_the_clients() {
        Problem::too_many(refused.to_string(), Duration::ZERO)
    } else {
        Problem::overloaded(refused.to_string())
    };
    come_back(app, headers, problem)
}

/// The answer to a stream's request that meets a problem which passes.
pub(super) fn come_back(app: &App, headers: &HeaderMap, problem: Problem) -> Result<Response<Body>, Problem> {
    if !negotiate::is_event_source(headers) {
        return Err(problem);
    }
    if let Some(status) = negotiate::refuse_with(headers)
        && problem.status() == StatusCode::SERVICE_UNAVAILABLE
    {
        return Err(Problem { status, ..problem });
    }
    let stream = &app.config.stream;
    let (least, most) = (stream.retry_min.as_millis() as u64, stream.retry_max.as_millis() as u64);
    let retry = fastrand::u64(least..=most.max(least));
    let mut response = Response::new(Body::from(format!("retry: {retry}\n\n: {}\n\n", problem.detail)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
