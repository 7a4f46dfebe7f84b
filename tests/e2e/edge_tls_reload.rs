//! A certificate that is renewed on disk, while streams go on.

use rustls::pki_types::CertificateDer;
use sluice_tests::{
    client::Client,
    gateway::Gateway,
    tls::{Authority, CERTIFICATE, KEY, replace},
    wait,
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The certificate that a new connection is served.
async fn served(gateway: &Gateway, authority: &Authority) -> CertificateDer<'static> {
    let socket = TcpStream::connect(gateway.address).await.expect("connects");
    let connector = TlsConnector::from(Arc::new(authority.trusted()));
    let handshake = connector.connect("localhost".try_into().expect("a name"), socket);
    let stream = wait::soon("the handshake", handshake).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_who_comes_next_and_streams_go_on() {
    let authority = Authority::new();
    let gateway = Gateway::start_secure("", &authority).await;
    let client = Client::once(gateway.events(&["a"]).over_tls(authority.trusted())).await;
    let first = served(&gateway, &authority).await;
    assert_eq!(served(&gateway, &authority).await, first);
    for round in 1..=2 {
        let renewed = authority.server();
        let (chain, _) = renewed.der();
        if round == 1 {
            // As a renewal that writes over both, with a moment between them in which they do not belong together.
            std::fs::write(gateway.directory().join(CERTIFICATE), &renewed.certificate).expect("written");
            std::fs::write(gateway.directory().join(KEY), &renewed.key).expect("written");
        } else {
            renewed.write(gateway.directory());
        }
        let is_served = async || (served(&gateway, &authority).await == chain[0]).then_some(());
        wait::until("the new one is served", is_served).await;
        gateway.wait_metric("sse_tls_reloads_total", &["result=\"changed\""], f64::from(round)).await;
        gateway.publish("a", round.to_string()).await;
        client.wait_data(&round.to_string()).await;
    }
    client.read(|log| assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "not disturbed"));
    assert_eq!(gateway.metric("sse_tls_reloads_total", &["result=\"failed\""]).await, 0.0);
    let expires = gateway.metric("sse_tls_certificate_expires_seconds", &[]).await;
    assert!(expires > sluice_tests::token::now() as f64, "{expires}");
}

#[tokio::test]
async fn a_replacement_that_cannot_be_used_changes_nothing_and_is_counted_once() {
    let authority = Authority::new();
    let gateway = Gateway::start_secure("", &authority).await;
    let client = Client::once(gateway.events(&["a"]).over_tls(authority.trusted())).await;
    let first = served(&gateway, &authority).await;
    let expires = gateway.metric("sse_tls_certificate_expires_seconds", &[]).await;
    let (other, path) = (authority.server(), gateway.directory().join(CERTIFICATE));
    // No certificate, another key's, none at all.
    for (nth, broken) in [Some("rubbish"), Some(&*other.certificate), None].iter().enumerate() {
        match broken {
            Some(text) => replace(&path, text),
            None => std::fs::remove_file(&path).expect("removed"),
        }
        gateway.wait_metric("sse_tls_reloads_total", &["result=\"failed\""], (nth + 1) as f64).await;
        assert_eq!(served(&gateway, &authority).await, first);
    }
    gateway.publish("a", "x").await;
    client.wait_data("x").await;
    assert_eq!(gateway.metric("sse_tls_reloads_total", &["result=\"changed\""]).await, 0.0);
    assert_eq!(gateway.metric("sse_tls_certificate_expires_seconds", &[]).await, expires);
    // It says which file is wrong, and nothing of what stands in it.
    let said = gateway.process.stderr();
    assert!(said.contains("tls.certificate = ") && said.contains("tls.key = "), "{said}");
    assert!(!said.contains("rubbish") && !said.contains("-----BEGIN PRIVATE"), "{said}");
    // Once it is whole again it is taken.
    other.write(gateway.directory());
    gateway.wait_metric("sse_tls_reloads_total", &["result=\"changed\""], 1.0).await;
    assert_eq!(served(&gateway, &authority).await, other.der().0[0]);
}
