//! An issuer that publishes its keys: fetched, rotated, away, and not asked more often than it should be.

use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};
use sluice_tests::{
    gateway::{Gateway, Options},
    ports,
    token::{claims, pem, signed},
    wait,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// An issuer's server.
struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    serving: Option<JoinHandle<()>>,
}

impl Issuer {
    async fn start(keys: Value) -> Self {
        let mut issuer =
            Self { address: ports::free(), keys: Arc::new(Mutex::new(keys)), asked: Arc::default(), serving: None };
        issuer.serve().await;
        issuer
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("a port");
        let (keys, asked) = (Arc::clone(&self.keys), Arc::clone(&self.asked));
        self.serving = Some(tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let body = keys.lock().expect("no panic").to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }));
    }

    async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }
}

fn key(name: &str) -> EncodingKey {
    EncodingKey::from_rsa_pem(&std::fs::read(pem(name)).expect("a key")).expect("a key")
}

fn jwk(name: &str, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(&key(name), Algorithm::RS256).expect("a key");
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).expect("JSON")
}

fn token(name: &str, kid: Option<&str>) -> String {
    signed(Algorithm::RS256, &key(name), kid, &claims("ann", json!({ "admin": true })))
}

fn config(issuer: &Issuer) -> String {
    format!(
        "[auth]\njwks_cooldown = \"2s\"\n[[auth.key]]\nalg = \"RS256\"\njwks_url = \"http://{}/keys\"\n\
         issuer = \"https://id.example.com\"\naudience = \"sluice\"\n",
        issuer.address
    )
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    gateway.http.send("GET", "/connections", &[("authorization", &bearer)], "").await.status
}

async fn wait_status(gateway: &Gateway, token: &str, wanted: u16) {
    let what = format!("a token is answered {wanted}");
    wait::until(&what, async || (status(gateway, token).await == wanted).then_some(())).await;
}

#[tokio::test]
async fn keys_are_fetched_rotated_and_kept_while_the_issuer_is_away() {
    let mut issuer = Issuer::start(json!({ "keys": [{ "kty": "unheard of" }, jwk("rsa", "one")] })).await;
    let gateway = Gateway::start(&config(&issuer)).await;
    let (one, two) = (token("rsa", Some("one")), token("other_rsa", Some("two")));
    wait_status(&gateway, &one, 200).await;
    assert_eq!(status(&gateway, &token("rsa", None)).await, 200, "a token need not name its key");
    assert_eq!(status(&gateway, &token("other_rsa", Some("one"))).await, 401, "nor does naming one help");

    // A key that was not there a moment ago: asked for once it is named.
    *issuer.keys.lock().expect("no panic") = json!({ "keys": [jwk("rsa", "one"), jwk("other_rsa", "two")] });
    wait_status(&gateway, &two, 200).await;

    issuer.stop().await;
    for _ in 0..20 {
        assert_eq!((status(&gateway, &one).await, status(&gateway, &two).await), (200, 200), "what is known holds");
    }
}

#[tokio::test]
async fn an_issuer_is_not_asked_more_often_whatever_clients_send() {
    let issuer = Issuer::start(json!({ "keys": [jwk("rsa", "one")] })).await;
    let gateway = Gateway::start(&config(&issuer)).await;
    wait_status(&gateway, &token("rsa", Some("one")), 200).await;
    let (began, before) = (std::time::Instant::now(), issuer.asked.load(Ordering::SeqCst));
    for n in 0..300 {
        let answered = status(&gateway, &token("rsa", Some(&format!("made-up-{n}")))).await;
        assert!(matches!(answered, 401 | 503), "{answered}");
    }
    let asked = issuer.asked.load(Ordering::SeqCst) - before;
    let most = began.elapsed().as_secs() as usize / 2 + 1;
    assert!(asked <= most, "{asked} times in {:?}", began.elapsed());
}

#[tokio::test]
async fn before_the_keys_came_a_token_is_to_be_tried_again() {
    let mut issuer = Issuer::start(json!({ "keys": [jwk("rsa", "one")] })).await;
    issuer.stop().await;
    let gateway = Gateway::start_with(Options { config: config(&issuer), ..Options::default() }).await;
    let one = token("rsa", Some("one"));
    let bearer = format!("Bearer {one}");
    let answer = gateway.http.send("GET", "/connections", &[("authorization", &bearer)], "").await;
    answer.problem(503);
    assert!(!answer.header("retry-after").is_empty());
    let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    let stream = gateway.http.send("GET", "/events?channel=a", &headers, "").await;
    assert_eq!(stream.status, 200, "an EventSource would give up for ever on anything else");
    assert!(stream.text().starts_with("retry: "), "{}", stream.text());
    issuer.serve().await;
    wait_status(&gateway, &one, 200).await;
}
