//! Ordinary requests: one answer, read whole.

use crate::wait::PATIENCE;
use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::Value;
use std::net::SocketAddr;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, `""` if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// When the body is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text()))
    }

    /// The body of a refusal, after checking that it is problem JSON that says the same as the status.
    ///
    /// # Panics
    /// When it is not.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {problem}");
        }
        problem
    }
}

/// A client with a pool of connections to one address.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    client: Client,
}

impl Http {
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::with(Self::builder().tls_certs_only([]), &format!("http://{address}"))
    }

    /// What every client here has.
    pub fn builder() -> reqwest::ClientBuilder {
        Client::builder().no_proxy().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none())
    }

    /// A client made otherwise, and what stands before its paths.
    ///
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn with(builder: reqwest::ClientBuilder, base: &str) -> Self {
        Self { base: base.to_owned(), client: builder.build().expect("a client") }
    }

    /// # Errors
    /// When there is no answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }

    /// # Panics
    /// When there is no answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let answer = self.try_send(method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send("POST", path, &[], body).await
    }

    /// GET of what must be there, as JSON.
    ///
    /// # Panics
    /// When the answer is another.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK.as_u16(), "{path}: {}", answer.text());
        answer.json()
    }
}
