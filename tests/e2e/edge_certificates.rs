//! Client certificates: who must have one, whose are believed, and for how long.

use rustls::{
    ClientConfig, HandshakeKind, SignatureScheme, client::ResolvesClientCert, crypto::aws_lc_rs::sign,
    sign::CertifiedKey,
};
use sluice_tests::{
    client::{Client, Request},
    gateway::{Gateway, Options},
    tls::{self, Authority, CLIENT_CA, Pair, SERVED, replace, rustls_builder},
    wait,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A gateway with a certificate of `servers` that takes publishers with one of `clients`.
async fn start(servers: &Authority, clients: &Authority) -> Gateway {
    let config = format!("{SERVED}client_ca = \"{CLIENT_CA}\"\npublish_needs_certificate = true\n");
    let mut gateway = Gateway::start_beside(Options { config, ..Options::default() }, |directory| {
        servers.server().write(directory);
        replace(&directory.join(CLIENT_CA), &clients.pem);
    })
    .await;
    gateway.http = tls::http(gateway.address, servers, None);
    gateway
}

#[tokio::test]
async fn without_a_certificate_one_may_read_and_neither_publish_nor_close() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let gateway = start(&servers, &clients).await;
    let client = Client::once(gateway.events(&["a"]).over_tls(servers.trusted())).await;
    let changes = [
        ("POST", "/channels/a/events"),
        ("POST", "/events"),
        ("POST", "/broadcast"),
        ("DELETE", "/channels/a/events"),
        ("DELETE", "/connections/x"),
        ("DELETE", "/users/x/connections"),
        ("DELETE", "/tokens/x"),
    ];
    for (method, path) in changes {
        let problem = gateway.http.send(method, path, &[], "{\"channel\":\"a\",\"data\":\"no\"}").await.problem(403);
        let is_said = problem["detail"].as_str().is_some_and(|detail| detail.contains("certificate"));
        assert!(is_said && problem["type"] == "urn:sluice:problem:forbidden", "{method} {path}: {problem}");
    }
    let refused = changes.len() as f64;
    gateway.wait_metric("sse_auth_failures_total", &["reason=\"certificate\""], refused).await;
    for path in ["/channels/a", "/channels/a/events", "/connections", "/"] {
        assert_eq!(gateway.http.get(path).await.status, 200, "{path}");
    }

    let known = tls::http(gateway.address, &servers, Some(&clients.client("shop")));
    for (method, path, status) in [
        ("POST", "/channels/a/events", 200),
        ("POST", "/events", 200),
        ("DELETE", "/channels/a/events", 204),
        ("DELETE", "/connections/x", 204),
    ] {
        let answer = known.send(method, path, &[], "{\"channel\":\"a\",\"data\":\"yes\"}").await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    client.wait_data("yes").await;
    client.wait_events(2).await;
    assert!(!client.data().iter().any(|data| data.contains("no")), "nothing of what was refused");
}

#[tokio::test]
async fn a_certificate_of_another_authority_fails_the_handshake() {
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let gateway = start(&servers, &clients).await;
    // That of the gateway's own certificate is another too.
    for (nth, stranger) in [&others, &servers].into_iter().enumerate() {
        let http = tls::http(gateway.address, &servers, Some(&stranger.client("shop")));
        for method in ["GET", "POST"] {
            let answer = http.try_send(method, "/channels/a/events", &[], "x").await;
            assert!(answer.is_err(), "{method}: {answer:?}");
        }
        let least = 2.0 * (nth + 1) as f64;
        let counted = async || gateway.metric("sse_connections_turned_away_total", &["reason=\"tls\""]).await >= least;
        wait::until("they are counted", async || counted().await.then_some(())).await;
    }
    let known = tls::http(gateway.address, &servers, Some(&clients.client("shop")));
    assert_eq!(known.get("/channels/a/events").await.json()["events"], serde_json::json!([]), "nothing was published");
}

/// Presents a certificate while it is told to.
#[derive(Debug)]
struct Presenting {
    key: Arc<CertifiedKey>,
    presents: AtomicBool,
}

impl Presenting {
    fn new(pair: &Pair) -> Arc<Self> {
        let (chain, key) = pair.der();
        let key = CertifiedKey::new(chain, sign::any_supported_type(&key).expect("a key"));
        Arc::new(Self { key: Arc::new(key), presents: AtomicBool::new(true) })
    }
}

impl ResolvesClientCert for Presenting {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.presents.load(Ordering::Relaxed).then(|| Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Publishes on a connection of its own, and says how its handshake went and how it was answered.
async fn publish(gateway: &Gateway, trusted: &Arc<ClientConfig>) -> (HandshakeKind, u16) {
    let socket = TcpStream::connect(gateway.address).await.expect("connects");
    let connecting = TlsConnector::from(Arc::clone(trusted)).connect("localhost".try_into().expect("a name"), socket);
    let mut stream: TlsStream<_> = wait::soon("the handshake", connecting).await.expect("a handshake");
    let request = "POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // Tickets come with it.
    wait::soon("the answer", stream.read_to_end(&mut answer)).await.expect("an answer");
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
    (stream.get_ref().1.handshake_kind().expect("shaken hands"), status.expect("a status"))
}

#[tokio::test]
async fn a_ticket_carries_no_certificate_past_the_authority_that_signed_it() {
    let (servers, clients, next) = (Authority::new(), Authority::new(), Authority::new());
    let gateway = start(&servers, &clients).await;
    let presenting = Presenting::new(&clients.client("shop"));
    let trusted = Arc::new(rustls_builder(&servers).with_client_cert_resolver(Arc::clone(&presenting) as _));
    assert_eq!(publish(&gateway, &trusted).await, (HandshakeKind::Full, 200));
    // A ticket stands for the certificate: that is what it is for.
    presenting.presents.store(false, Ordering::Relaxed);
    assert_eq!(publish(&gateway, &trusted).await, (HandshakeKind::Resumed, 200));

    replace(&gateway.directory().join(CLIENT_CA), &next.pem);
    gateway.wait_metric("sse_tls_reloads_total", &["result=\"changed\""], 1.0).await;
    assert_eq!(publish(&gateway, &trusted).await, (HandshakeKind::Full, 403));
    let known = tls::http(gateway.address, &servers, Some(&next.client("shop")));
    assert_eq!(known.post("/channels/a/events", "x").await.status, 200);
}

#[tokio::test]
async fn a_ticket_carries_no_certificate_past_its_end() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let gateway = start(&servers, &clients).await;
    // Long enough for two handshakes.
    let end = SystemTime::now() + Duration::from_secs(5);
    let presenting = Presenting::new(&clients.client_until("shop", end));
    let trusted = Arc::new(rustls_builder(&servers).with_client_cert_resolver(Arc::clone(&presenting) as _));
    assert_eq!(publish(&gateway, &trusted).await, (HandshakeKind::Full, 200));
    presenting.presents.store(false, Ordering::Relaxed);
    assert_eq!(publish(&gateway, &trusted).await, (HandshakeKind::Resumed, 200));
    let refused = async || (publish(&gateway, &trusted).await.1 == 403).then_some(());
    wait::until("it has expired", refused).await;
    assert!(SystemTime::now() > end, "and not before");
}

#[tokio::test]
async fn a_stream_goes_on_when_the_authority_of_its_certificate_is_replaced() {
    let (servers, clients, next) = (Authority::new(), Authority::new(), Authority::new());
    let gateway = start(&servers, &clients).await;
    let request: Request = gateway.events(&["a"]).over_tls(servers.trusted_by(&clients.client("reader")));
    let client = Client::once(request).await;
    replace(&gateway.directory().join(CLIENT_CA), &next.pem);
    gateway.wait_metric("sse_tls_reloads_total", &["result=\"changed\""], 1.0).await;
    let known = tls::http(gateway.address, &servers, Some(&next.client("shop")));
    assert_eq!(known.post("/channels/a/events", "x").await.status, 200);
    client.wait_data("x").await;
    client.read(|log| assert_eq!((log.heads.len(), log.ends.len()), (1, 0)));
}
