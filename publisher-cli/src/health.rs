//! `sluice health`: asks a gateway's admin port how it is, for containers that have nothing else to ask with.

use crate::{
    args::{GatewayArgs, HealthArgs},
    exit::Failure,
    gateway::{Gateway, RequestError},
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

/// What `/readyz` and `/livez` say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Health {
    reasons: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the gateway does not answer in time, or is not well.
pub async fn run(args: HealthArgs) -> Result<(), Failure> {
    let failed = |error: RequestError| Failure::Failed(error.to_string());
    let url = args.url;
    let gateway = Gateway::new(&GatewayArgs { url: url.clone(), token: None }).map_err(Failure::Failed)?;
    let request = gateway.request(Method::GET, url.clone()).timeout(args.timeout);
    let response = request.send().await.map_err(|error| failed(gateway.unreachable(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return Err(Failure::Failed(format!("{url} answers {status}")));
    }
    let body = gateway.body(response).await.map_err(failed)?;
    let Health { reasons } = serde_json::from_slice(&body).unwrap_or_default();
    let why = if reasons.is_empty() { status.to_string() } else { reasons.join("; ") };
    Err(Failure::Failed(format!("{url}: {why}")))
}
