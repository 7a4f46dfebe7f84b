//! A collector of traces that keeps what it is sent: OTLP over HTTP, in OpenTelemetry's own types.

use crate::wait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span as OtlpSpan,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// A span as tests look at it.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    /// As the protocol has it: 2 server, 4 producer, 5 consumer.
    pub kind: i32,
    pub trace: String,
    pub id: String,
    /// Empty for none.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    pub is_error: bool,
    /// Of the process that sent it.
    pub resource: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    headers: Vec<BTreeMap<String, String>>,
    paths: Vec<String>,
}

/// A running one.
#[derive(Debug)]
pub struct Collector {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let kept = Arc::<Mutex<Kept>>::default();
        let serving = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&serving);
                let service = service_fn(move |request| take(Arc::clone(&kept), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, kept, task }
    }

    /// What is kept, as it is now.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).spans.clone()
    }

    /// The paths and headers of all requests.
    #[must_use]
    pub fn requests(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.paths.iter().cloned().zip(kept.headers.iter().cloned()).collect()
    }

    /// Waits until there are so many spans that are `wanted`, and answers them.
    pub async fn wait(&self, what: &str, count: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        wait::until(what, async || {
            let found: Vec<_> = self.spans().into_iter().filter(|span| wanted(span)).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(kept: Arc<Mutex<Kept>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let (headers, path) = (headers.collect(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::default());
    match ExportTraceServiceRequest::decode(body) {
        Ok(sent) => {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.headers.push(headers);
            kept.paths.push(path);
            for of_resource in sent.resource_spans {
                let resource = attributes(&of_resource.resource.unwrap_or_default().attributes);
                let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                kept.spans.extend(spans.map(|span| read(&span, &resource)));
            }
            *response.body_mut() = ExportTraceServiceResponse::default().encode_to_vec().into();
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

fn read(span: &OtlpSpan, resource: &BTreeMap<String, String>) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        name: span.name.clone(),
        kind: span.kind,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes: attributes(&span.attributes),
        is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
        resource: resource.clone(),
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    list.iter().map(|one| (one.key.clone(), text(&one.value))).collect()
}
