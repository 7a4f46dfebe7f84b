//! Traces of publishing and connecting, sent to an OpenTelemetry collector. Off unless configured, and then a request
//! costs a look at one `Option`.
//!
//! A request that comes with a `traceparent` goes on with that trace, and is kept if that one is. What is published in
//! it carries the trace on: through Redis to every replica, which says in it when it delivered, and to subscribers.

mod export;

use crate::{
    channel::Channel,
    config,
    event::Event,
    metrics::Metrics,
    traceparent::{TRACEPARENT, Traceparent},
};
use hyper::{HeaderMap, Method, StatusCode};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan},
};
use std::time::Duration;

/// Spans that wait to be sent: whoever comes with more is not traced, and not slowed down.
const MOST_WAITING: usize = 8192;
/// How often they are sent.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long an end waits for the last of them.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Where spans go, if anywhere.
#[derive(Default)]
pub struct Traces(Option<On>);

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to `traces.otlp`: {0}")]
pub struct InvalidTraces(String);

impl Traces {
    /// Needs a tokio runtime, on which spans are sent.
    ///
    /// # Errors
    /// When there can be no client for the configured address.
    pub fn start(config: &config::Traces, replica: &str, metrics: &Metrics) -> Result<Self, InvalidTraces> {
        let Some(address) = &config.otlp else { return Ok(Self::default()) };
        let exporter = export::exporter(address, metrics).map_err(|error| InvalidTraces(error.to_string()))?;
        let batches =
            BatchConfigBuilder::default().with_max_queue_size(MOST_WAITING).with_scheduled_delay(SEND_EVERY).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let some = Sampler::TraceIdRatioBased(1.0 / config.one_in as f64);
        let resource = Resource::builder()
            .with_service_name(config.service.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", replica.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(some)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("sluice");
        Ok(Self(Some(On { provider, tracer })))
    }

    /// A request's span, from now until it is dropped. `route` is the path with names for what varies in it.
    #[must_use]
    pub fn request(&self, method: &Method, route: &'static str, headers: &HeaderMap) -> Span {
        let Some(on) = &self.0 else { return Span(None) };
        let parent = headers.get(TRACEPARENT).and_then(|value| Traceparent::parse(value.to_str().ok()?));
        let attributes =
            vec![KeyValue::new("http.request.method", method.to_string()), KeyValue::new("http.route", route)];
        on.begin(format!("{method} {route}"), SpanKind::Server, parent, attributes)
    }

    /// The span of handing events to the broker, within that of a request.
    #[must_use]
    pub fn send(&self, within: &Span, channel: Option<&Channel>, events: usize) -> Span {
        let (Some(on), Some(parent)) = (&self.0, within.traceparent()) else { return Span(None) };
        let mut attributes = messaging("send", channel);
        attributes.push(KeyValue::new("messaging.batch.message_count", i64::try_from(events).unwrap_or(i64::MAX)));
        on.begin("send".to_owned(), SpanKind::Producer, Some(parent), attributes)
    }

    /// The span of passing an event on to this replica's streams; of none that nobody traces.
    #[must_use]
    pub fn deliver(&self, event: &Event, channel: &str) -> Span {
        let (Some(on), Some(parent)) = (&self.0, event.traceparent()) else { return Span(None) };
        let mut attributes = messaging("process", None);
        attributes.push(KeyValue::new("messaging.destination.name", channel.to_owned()));
        on.begin("deliver".to_owned(), SpanKind::Consumer, Some(*parent), attributes)
    }

    /// Sends what waits, and ends. Blocks for a moment at the most.
    pub fn stop(&self) {
        if let Some(on) = &self.0
            && let Err(error) = on.provider.shutdown_with_timeout(LAST_WITHIN)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

fn messaging(operation: &'static str, channel: Option<&Channel>) -> Vec<KeyValue> {
    let mut attributes =
        vec![KeyValue::new("messaging.system", "sluice"), KeyValue::new("messaging.operation.type", operation)];
    if let Some(channel) = channel {
        attributes.push(KeyValue::new("messaging.destination.name", channel.to_string()));
    }
    attributes
}

impl On {
    fn begin(&self, name: String, kind: SpanKind, parent: Option<Traceparent>, attributes: Vec<KeyValue>) -> Span {
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent.context()),
            None => Context::new(),
        };
        let builder = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        Span(Some(Box::new(self.tracer.build_with_context(builder, &context))))
    }
}

/// One that is under way, or nothing where none is traced. Ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Box<SdkSpan>>);

impl Span {
    pub fn set(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// How a request was answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            self.failed(status.to_string());
        }
    }

    pub fn failed(&mut self, why: String) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why));
        }
    }

    /// Whether somebody will see it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// What those who go on with the trace need to know; `None` where nobody keeps it.
    #[must_use]
    pub fn traceparent(&self) -> Option<Traceparent> {
        Traceparent::of(self.0.as_ref()?.span_context()).filter(Traceparent::is_sampled)
    }
}
