//! Sending spans to a collector by OTLP over HTTP.

use crate::metrics::Metrics;
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use prometheus::IntCounterVec;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// What is added to an address that is only a host, as OpenTelemetry has it.
const PATH: &str = "/v1/traces";

pub(super) fn exporter(address: &str, metrics: &Metrics) -> Result<SpanExporter, ExporterBuildError> {
    let mut url =
        reqwest::Url::parse(address).map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
    if url.path() == "/" {
        url.set_path(PATH);
    }
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
    let runtime = tokio::runtime::Handle::current();
    let client = Client { client, runtime, exports: metrics.trace_exports.clone(), complained: AtomicBool::new(false) };
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(TIMEOUT)
        .build()
}

/// Ours, on the runtime of the gateway: spans are sent from a thread that has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
    exports: IntCounterVec,
    complained: AtomicBool,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let sending = self.runtime.spawn(async move {
            let answer = request.send().await.map_err(reqwest::Error::without_url)?;
            let status = answer.status();
            let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
            Ok::<_, reqwest::Error>((status, body))
        });
        let sent = match sending.await {
            Ok(Ok((status, body))) if status.is_success() => Ok((status, body)),
            Ok(Ok((status, _))) => Err(format!("it answers {status}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let result = if sent.is_ok() { "ok" } else { "failed" };
        self.exports.with_label_values(&[result]).inc();
        let complained = self.complained.swap(sent.is_err(), Ordering::AcqRel);
        match sent {
            Ok((status, body)) => {
                let mut response = Response::new(body);
                *response.status_mut() = status;
                Ok(response)
            }
            Err(why) => {
                if !complained {
                    tracing::warn!(why, "spans cannot be sent to the collector and are lost");
                }
                Err(why.into())
            }
        }
    }
}
