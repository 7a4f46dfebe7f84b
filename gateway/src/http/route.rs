//! From a request to its handler: paths, methods, and what every answer gets.

use super::{
    App,
    body::Body,
    caller::{Caller, Peer},
    connection::Transport,
    console, cors, counts, head_size, history,
    incoming_body::Sent,
    problem::{Problem, ProblemType},
    publish,
    query::Query,
    subscribe,
};
use crate::{channel::Channel, hub::Target, traces::Span};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN},
};
use std::sync::{Arc, atomic::Ordering};

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Console(String),
    Events,
    Broadcast,
    Channel(String),
    ChannelEvents(String),
    Connections,
    Connection(String),
    UserConnections(String),
    Token(String),
}

impl Resource {
    /// A channel's name may hold slashes, escaped or as they are: what stands around it decides.
    pub(super) fn of(path: &str) -> Option<Self> {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let resource = match path {
            "/" | "/console.js" | "/console.css" => Self::Console(path.to_owned()),
            "/events" => Self::Events,
            "/broadcast" => Self::Broadcast,
            "/connections" => Self::Connections,
            _ => {
                if let Some(rest) = path.strip_prefix("/channels/") {
                    match rest.strip_suffix("/events") {
                        Some(name) => Self::ChannelEvents(decode(name)),
                        None => Self::Channel(decode(rest)),
                    }
                } else if let Some(id) = path.strip_prefix("/connections/") {
                    Self::Connection(decode(id))
                } else if let Some(id) = path.strip_prefix("/tokens/") {
                    Self::Token(decode(id))
                } else {
                    let subject = path.strip_prefix("/users/")?.strip_suffix("/connections")?;
                    Self::UserConnections(decode(subject))
                }
            }
        };
        Some(resource).filter(Self::is_named)
    }

    fn is_named(&self) -> bool {
        match self {
            Self::Channel(name) | Self::ChannelEvents(name) => !name.is_empty(),
            Self::Connection(name) | Self::UserConnections(name) | Self::Token(name) => !name.is_empty(),
            _ => true,
        }
    }

    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Console(_) | Self::Channel(_) | Self::Connections => "GET, HEAD, OPTIONS",
            Self::Events => "GET, HEAD, POST, OPTIONS",
            Self::Broadcast => "POST, OPTIONS",
            Self::ChannelEvents(_) => "GET, HEAD, POST, DELETE, OPTIONS",
            Self::Connection(_) | Self::UserConnections(_) | Self::Token(_) => "DELETE, OPTIONS",
        }
    }
}

/// Answers a request. Never fails: what goes wrong is an answer too.
pub(super) async fn answer(app: Arc<App>, transport: Transport, peer: Peer, request: Request<Sent>) -> Response<Body> {
    app.in_flight.fetch_add(1, Ordering::AcqRel);
    let counted = Counted(Arc::clone(&app));
    let origin = request.headers().get(ORIGIN).cloned();
    let version = request.version();
    let (method, resource) = (request.method().clone(), Resource::of(request.uri().path()));
    let mut span = span(&app, resource.as_ref(), &request);
    let handled = match &resource {
        None => Err(Problem::not_found("there is nothing at this path; see docs/http.md")),
        Some(resource) if method == Method::OPTIONS => Ok(options(resource, origin.is_some())),
        Some(resource) if !resource.methods().split(", ").any(|allowed| allowed == method.as_str()) => {
            Err(Problem::method_not_allowed(resource.methods()))
        }
        Some(resource) => handle(&app, transport, &peer, resource, request, counted, &mut span).await,
    };
    let mut response = handled.unwrap_or_else(Problem::into_response);
    span.answered(response.status());
    count(&app, &response);
    // What is left of a body ends the connection: a client that keeps connections must know. And one that is told to
    // before the replica goes finds no connection closed under its next request.
    let ends = leaves_body_unread(response.status()) || app.hub.is_draining();
    if version <= hyper::Version::HTTP_11 && ends {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    cors::add(&app.config, origin.as_ref(), response.headers_mut());
    response
}

/// The span of a request that publishes or connects; of no other.
fn span(app: &App, resource: Option<&Resource>, request: &Request<Sent>) -> Span {
    let route = match (resource, request.method()) {
        (Some(Resource::Events), _) => "/events",
        (Some(Resource::Broadcast), _) => "/broadcast",
        (Some(Resource::ChannelEvents(_)), &Method::POST) => "/channels/{channel}/events",
        _ => return Span::default(),
    };
    app.hub.traces().request(request.method(), route, request.headers())
}

/// Whom a request is for is said once (RFC 9112, section 3.2): a proxy and we could read two of them differently.
fn one_host(request: &Request<Sent>) -> Result<(), Problem> {
    let hosts = request.headers().get_all(HOST).iter().count();
    match (request.version(), hosts) {
        (Version::HTTP_11, 0) => Err(Problem::invalid_request("an HTTP/1.1 request has a Host header")),
        (_, 0 | 1) => Ok(()),
        _ => Err(Problem::invalid_request("a request has one Host header, and not several")),
    }
}

/// Counts an answer that is a problem.
pub(super) fn count(app: &App, response: &Response<Body>) {
    if let Some(ProblemType(kind)) = response.extensions().get() {
        app.metrics.problems.with_label_values(&[kind]).inc();
    }
}

fn leaves_body_unread(status: StatusCode) -> bool {
    matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::REQUEST_TIMEOUT)
}

struct Counted(Arc<App>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

fn options(resource: &Resource, is_of_a_page: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.methods()));
    if is_of_a_page {
        cors::add_preflight(response.headers_mut(), resource.methods());
    }
    response
}

async fn handle(
    app: &Arc<App>,
    transport: Transport,
    peer: &Peer,
    resource: &Resource,
    request: Request<Sent>,
    counted: Counted,
    span: &mut Span,
) -> Result<Response<Body>, Problem> {
    head_size::check(&request, app.config.http.max_header_bytes.get())?;
    one_host(&request)?;
    must_be_known(app, peer, request.method())?;
    if let Resource::Console(path) = resource {
        // Whatever cookie a browser has: there is nothing in these files.
        return if app.config.console.unwrap_or(app.auth.is_open()) {
            console::file(path).ok_or_else(|| Problem::not_found("there is no such file"))
        } else {
            Err(Problem::not_found("the console is switched off (`console = true` shows it)"))
        };
    }
    let query = Query::parse(request.uri().query())?;
    let caller = match Caller::of(app, peer, request.headers(), &query) {
        Err(problem) if *resource == Resource::Events && problem.retry_after.is_some() => {
            return subscribe::come_back(app, request.headers(), problem);
        }
        caller => caller?,
    };
    match (resource, request.method()) {
        (Resource::Console(_), _) => Err(Problem::not_found("there is no such file")),
        (Resource::Events, &Method::POST) => publish::batch(app, peer, &caller, request, span).await,
        (Resource::Events, _) => {
            // A stream is no request that a stop waits for.
            drop(counted);
            subscribe::stream(app, transport, &caller, &request, &query, span).await
        }
        (Resource::Broadcast, _) => publish::one(app, peer, &caller, Channel::all(), request, &query, span).await,
        (Resource::ChannelEvents(name), &Method::POST) => {
            publish::one(app, peer, &caller, channel(name)?, request, &query, span).await
        }
        (Resource::ChannelEvents(name), &Method::DELETE) => history::forget(app, &caller, &channel(name)?).await,
        (Resource::ChannelEvents(name), _) => history::read(app, &caller, &channel(name)?, &query).await,
        (Resource::Channel(name), _) => counts::channel(app, &caller, &channel(name)?).await,
        (Resource::Connections, _) => counts::connections(app, &caller).await,
        (Resource::Connection(id), _) => counts::close(app, &caller, Target::Connection(id.clone())).await,
        (Resource::UserConnections(subject), _) => counts::close(app, &caller, Target::User(subject.clone())).await,
        (Resource::Token(id), _) => counts::deny(app, &caller, id, &query).await,
    }
}

/// Refuses those who would change something without the certificate that it takes.
fn must_be_known(app: &App, peer: &Peer, method: &Method) -> Result<(), Problem> {
    let changes = matches!(*method, Method::POST | Method::DELETE);
    if changes && app.config.tls.publish_needs_certificate && peer.certificate.is_none() {
        app.metrics.auth_failures.with_label_values(&["certificate"]).inc();
        return Err(Problem::forbidden("publishing and closing take a client certificate, and none was presented"));
    }
    Ok(())
}

fn channel(name: &str) -> Result<Channel, Problem> {
    Channel::new(name).map_err(|error| Problem::invalid_channel(error.to_string()))
}

/// A JSON answer.
pub(super) fn json(value: &impl serde::Serialize) -> Response<Body> {
    // What is given here has no map whose keys are not text, which is all that could fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_may_hold_slashes() {
        let events = |name: &str| Some(Resource::ChannelEvents(name.to_owned()));
        assert_eq!(Resource::of("/channels/a/events"), events("a"));
        assert_eq!(Resource::of("/channels/https%3A%2F%2Fx%2F1/events"), events("https://x/1"));
        assert_eq!(Resource::of("/channels/https://x/1/events"), events("https://x/1"));
        assert_eq!(Resource::of("/channels/a"), Some(Resource::Channel("a".to_owned())));
        assert_eq!(Resource::of("/users/u%2F1/connections"), Some(Resource::UserConnections("u/1".to_owned())));
        for nothing in
            ["/nothing", "/channels/", "/channels//events", "/channel/a", "/users/connections", "", "/events/"]
        {
            assert_eq!(Resource::of(nothing), None, "{nothing}");
        }
    }
}
