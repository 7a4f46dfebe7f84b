//! A client of HTTP/2 by prior knowledge that keeps to one connection.

use crate::wait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice_cli::sse::{Event, Parser};
use std::net::SocketAddr;
use tokio::{net::TcpStream, task::JoinHandle};

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connects");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (sender, connection) = wait::soon("the handshake", handshake).await.expect("HTTP/2");
        Self { address, sender, driver: tokio::spawn(connection) }
    }

    /// Sends a request, and answers with the head of its answer.
    ///
    /// # Errors
    /// When the connection takes no request any more.
    ///
    /// # Panics
    /// When it is no request.
    pub async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        wait::soon("the connection takes a request", self.sender.ready()).await?;
        wait::soon("an answer", self.sender.send_request(request)).await
    }

    /// # Panics
    /// When there is no answer.
    pub async fn send(&mut self, method: &str, path: &str, body: &str) -> Response<Incoming> {
        self.try_send(method, path, &[], body).await.expect("an answer")
    }

    /// # Panics
    /// When there is no answer.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        self.try_send("GET", path, headers, "").await.expect("an answer")
    }

    /// Waits until the gateway has ended the connection.
    ///
    /// # Panics
    /// When it broke, or did not end.
    pub async fn wait_end(self) {
        wait::soon("the connection's end", self.driver).await.expect("no panic").expect("an end as it should be");
    }
}

/// Reads a stream until it has had this many events.
///
/// # Panics
/// When it ends or breaks before.
pub async fn events(response: &mut Response<Incoming>, parser: &mut Parser, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let frame = wait::soon("the next bytes", response.body_mut().frame()).await.expect("not the end");
        if let Ok(data) = frame.expect("no error").into_data() {
            parser.push(&data, &mut events).expect("not too large");
        }
    }
    events
}

/// Reads a stream to its end; answers its last bytes as text.
///
/// # Panics
/// When it breaks.
pub async fn rest(response: Response<Incoming>) -> String {
    let rest = wait::soon("the end of the stream", response.into_body().collect()).await.expect("an end, not a break");
    String::from_utf8_lossy(&rest.to_bytes()).into_owned()
}
