//! A server that records what it is asked and answers as the test says.

use crate::command::PATIENCE;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{io, pin::Pin, sync::Arc};
use tokio::{net::TcpListener, sync::watch};

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query, as they came.
    pub(crate) target: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// The lines of an NDJSON body.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        self.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync>>;

pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    chunks: Chunks,
}

impl Answer {
    pub(crate) fn json(status: u16, body: impl ToString) -> Self {
        let kind = if status < 300 { "application/json" } else { "application/problem+json" };
        Self::new(status, vec![("content-type", kind.into())], stream::iter([body.to_string()]))
    }

    pub(crate) fn problem(status: u16, title: &str, detail: &str) -> Self {
        let body = serde_json::json!({ "type": "about:blank", "title": title, "status": status, "detail": detail });
        Self::json(status, body)
    }

    /// An event stream that ends after this.
    pub(crate) fn events(text: &str) -> Self {
        let headers = vec![("content-type", "text/event-stream; charset=utf-8".to_owned())];
        Self::new(200, headers, stream::iter([text.to_owned()]))
    }

    /// The connection is cut where the request has been read and nothing said.
    pub(crate) fn cut() -> Self {
        Self::new(0, Vec::new(), stream::empty())
    }

    fn new(
        status: u16,
        headers: Vec<(&'static str, String)>,
        pieces: impl Stream<Item = String> + Send + Sync + 'static,
    ) -> Self {
        Self { status, headers, chunks: Box::pin(pieces.map(|piece| Ok(Frame::data(Bytes::from(piece))))) }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The stream then stays open and says nothing.
    pub(crate) fn and_silence(mut self) -> Self {
        self.chunks = Box::pin(self.chunks.chain(stream::pending()));
        self
    }

    /// The stream then breaks off.
    pub(crate) fn and_break(mut self) -> Self {
        let broken = stream::once(async {
            // hyper drops what it has not flushed, and flushes when it has to wait.
            tokio::task::yield_now().await;
            Err(io::Error::other("broken"))
        });
        self.chunks = Box::pin(self.chunks.chain(broken));
        self
    }
}

/// What to answer the request of this number, from 0.
type Script = dyn Fn(usize, &Asked) -> Answer + Send + Sync;

pub(crate) struct Server {
    pub(crate) url: String,
    asked: watch::Receiver<Vec<Asked>>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (record, asked) = watch::channel(Vec::new());
        let (record, script): (_, Arc<Script>) = (Arc::new(record), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accepts");
                let (record, script) = (Arc::clone(&record), Arc::clone(&script));
                let service = service_fn(move |request| answer(request, Arc::clone(&record), Arc::clone(&script)));
                // A connection that is cut, by either side, is part of the tests.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn asked_times(&self, count: usize) -> Vec<Asked> {
        let mut asked = self.asked.clone();
        let enough = asked.wait_for(|asked| asked.len() >= count);
        tokio::time::timeout(PATIENCE, enough).await.expect("is asked").expect("runs").clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    record: Arc<watch::Sender<Vec<Asked>>>,
    script: Arc<Script>,
) -> io::Result<Response<StreamBody<Chunks>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    };
    let mut number = 0;
    record.send_modify(|all| {
        number = all.len();
        all.push(asked.clone());
    });
    let Answer { status, headers, chunks } = script(number, &asked);
    if status == 0 {
        return Err(io::Error::other("cut"));
    }
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(StreamBody::new(chunks)).expect("a response"))
}
