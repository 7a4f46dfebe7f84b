//! Publishing through a gateway. Every event has an idempotency key, made here if the user gave none, so that a request
//! whose answer was lost can be repeated without publishing anything twice.

use super::{Outcome, Outgoing, Refused, keys::Keys};
use crate::{
    args::GatewayArgs,
    backoff::Retry,
    gateway::{self, Gateway, Problem, RequestError},
};
use reqwest::{Method, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use std::{mem, time::Duration};

/// The largest request that a gateway is sure to take, in bytes; its limit of 1,000 events is the batches' own.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// How long one request may take, a mebibyte over a slow line included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct HttpTarget {
    gateway: Gateway,
    retry_for: Duration,
    /// The trace that goes on with what is published.
    traceparent: Option<String>,
    keys: Keys,
    /// Less than the constant while a proxy on the way takes only less.
    max_request_bytes: usize,
}

#[derive(Serialize)]
struct WireEvent<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: &'a str,
    idempotency_key: &'a str,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<ItemResult>,
}

#[derive(Deserialize)]
struct ItemResult {
    position: Option<String>,
    problem: Option<Problem>,
}

impl HttpTarget {
    pub(super) fn new(args: &GatewayArgs, retry_for: Duration, traceparent: Option<String>) -> Result<Self, String> {
        Ok(Self {
            gateway: Gateway::for_publishing(args)?,
            retry_for,
            traceparent,
            keys: Keys::new(),
            max_request_bytes: MAX_REQUEST_BYTES,
        })
    }

    pub(super) async fn publish(&mut self, events: &[Outgoing]) -> Vec<Outcome> {
        match events {
            // `.` and `..` mean directories where they stand in an address, and only there.
            [event] if event.line.is_none() && !matches!(event.channel.as_str(), "." | "..") => {
                vec![self.publish_one(event).await]
            }
            _ => self.publish_lines(events).await,
        }
    }

    async fn publish_one(&mut self, event: &Outgoing) -> Outcome {
        let mut url = self.gateway.url(&["channels", event.channel.as_str(), "events"]).map_err(|e| for_all(&e))?;
        if let Some(event_type) = event.event.event_type() {
            url.query_pairs_mut().append_pair("event", event_type);
        }
        let key = self.keys.of(event);
        let mut retry = Retry::new(self.retry_for);
        loop {
            let request = self.gateway.request(Method::POST, url.clone()).timeout(REQUEST_TIMEOUT);
            let request = request.header("idempotency-key", &key).header(CONTENT_TYPE, "text/plain; charset=utf-8");
            let error = match self.answer(request.body(event.event.data_bytes().clone())).await {
                Ok(ItemResult { position, .. }) => return Ok(position),
                Err(error) => error,
            };
            if !error.is_retryable() || !retry.wait(error.retry_after()).await {
                return Err(for_all(&error));
            }
        }
    }

    async fn publish_lines(&mut self, events: &[Outgoing]) -> Vec<Outcome> {
        let lines: Vec<String> = events.iter().map(|event| self.line(event)).collect();
        let mut outcomes = Vec::with_capacity(lines.len());
        while outcomes.len() < lines.len() {
            let rest = &lines[outcomes.len()..];
            let count = how_many_fit(rest, self.max_request_bytes);
            match self.publish_request(&rest[..count]).await {
                Ok(published) => {
                    if let [Err(Refused { is_final: false, .. })] = published.as_slice() {
                        // It may have been this event all along, and no limit on the way.
                        self.max_request_bytes = MAX_REQUEST_BYTES;
                    }
                    let goes_on = !published.iter().any(|outcome| matches!(outcome, Err(r) if r.is_final));
                    outcomes.extend(published);
                    if goes_on {
                        continue;
                    }
                    let untried = Refused { reason: "publishing had ended before it".into(), is_final: true };
                    outcomes.resize(lines.len(), Err(untried));
                }
                Err(TooMuch(bytes)) => self.max_request_bytes = bytes / 2,
            }
        }
        outcomes
    }

    /// Sends lines until each has been answered for good or the time for trying again is over.
    async fn publish_request(&self, lines: &[String]) -> Result<Vec<Outcome>, TooMuch> {
        let unanswered = Refused { reason: "no answer".into(), is_final: true };
        let mut outcomes: Vec<Outcome> = vec![Err(unanswered); lines.len()];
        let mut open: Vec<usize> = (0..lines.len()).collect();
        let mut retry = Retry::new(self.retry_for);
        loop {
            let body: String = open.iter().map(|&index| lines[index].as_str()).collect();
            let body_bytes = body.len();
            let retry_after = match self.post_lines(body, open.len()).await {
                Ok(results) => {
                    for (index, result) in mem::take(&mut open).into_iter().zip(results) {
                        let may_retry =
                            result.problem.as_ref().and_then(|p| p.status).is_some_and(gateway::is_retryable);
                        if may_retry {
                            open.push(index);
                        }
                        outcomes[index] = outcome(result);
                    }
                    None
                }
                Err(RequestError::Refused(refusal)) if refusal.status.as_u16() == 413 => {
                    if open.len() > 1 {
                        return Err(TooMuch(body_bytes));
                    }
                    // One event too large says nothing of the next.
                    let refused = Refused { reason: refusal.to_string(), is_final: false };
                    open.drain(..).for_each(|index| outcomes[index] = Err(refused.clone()));
                    None
                }
                Err(error) => {
                    for &index in &open {
                        outcomes[index] = Err(for_all(&error));
                    }
                    if !error.is_retryable() {
                        return Ok(outcomes);
                    }
                    error.retry_after()
                }
            };
            if open.is_empty() || !retry.wait(retry_after).await {
                return Ok(outcomes);
            }
        }
    }

    async fn post_lines(&self, body: String, count: usize) -> Result<Vec<ItemResult>, RequestError> {
        let request = self.gateway.request(Method::POST, self.gateway.url(&["events"])?).timeout(REQUEST_TIMEOUT);
        let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(body);
        let Results { results } = self.answer(request).await?;
        if results.len() != count {
            let reason = format!("{} results for {count} events", results.len());
            return Err(self.gateway.not_a_gateway(&reason));
        }
        Ok(results)
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        mut request: reqwest::RequestBuilder,
    ) -> Result<T, RequestError> {
        if let Some(traceparent) = self.traceparent.as_deref().filter(|span| !span.is_empty()) {
            request = request.header("traceparent", traceparent);
        }
        let body = self.gateway.body(self.gateway.send(request).await?).await?;
        serde_json::from_slice(&body).map_err(|e| self.gateway.not_a_gateway(&e.to_string()))
    }

    fn line(&mut self, event: &Outgoing) -> String {
        let key = self.keys.of(event);
        let wire = WireEvent {
            channel: event.channel.as_str(),
            event: event.event.event_type(),
            data: event.event.data(),
            idempotency_key: &key,
        };
        // Strings alone always serialise.
        let mut line = serde_json::to_string(&wire).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// A request of this many bytes, of several events, was too large for something on the way.
struct TooMuch(usize);

/// How many lines make one request: at least one, whatever its size, as the gateway is to be its judge.
fn how_many_fit(lines: &[String], max_bytes: usize) -> usize {
    let mut bytes = 0;
    let over = lines.iter().position(|line| {
        bytes += line.len();
        bytes > max_bytes
    });
    over.unwrap_or(lines.len()).max(1)
}

fn outcome(result: ItemResult) -> Outcome {
    match result.problem {
        None => Ok(result.position),
        Some(problem) => {
            let status = problem.status;
            let reason = problem.into_reason().unwrap_or_else(|| "refused".into());
            let reason = status.map_or(reason.clone(), |status| format!("{reason} (HTTP {status})"));
            // One that was still to be retried ends the run: the next would wait as long for nothing.
            Err(Refused { reason, is_final: status.is_some_and(gateway::is_retryable) })
        }
    }
}

/// A failure of the whole request, which the next would meet too.
fn for_all(error: &RequestError) -> Refused {
    Refused { reason: error.to_string(), is_final: true }
}
