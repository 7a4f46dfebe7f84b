//! `X-Forwarded-For`: the client's address out of it, as far as it is known to be true.

use sluice_tests::{client::Client, gateway::Gateway};

/// A gateway on which an address has one stream, so that a second one shows whom a request is taken for.
async fn start(proxy: &str) -> Gateway {
    Gateway::start(&format!(
        "[proxy]\n{proxy}\n[limits]\nconnections_per_address = 1\n[log]\nlevel = \"sluice_gateway=debug\"\n"
    ))
    .await
}

/// Opens a stream with these header lines; answers it and its status.
async fn open(gateway: &Gateway, lines: &[&str]) -> (Client, u16) {
    let request = gateway.events(&["a"]).header("Accept", "*/*");
    let request = lines.iter().fold(request, |request, line| request.header("X-Forwarded-For", line));
    let client = Client::once(request).await;
    let status = client.read(|log| log.head().status);
    (client, status)
}

/// Asserts that the requests are taken for those of this client: while one of them has a stream, no other gets one.
async fn are_of(gateway: &Gateway, address: &str, requests: &[&[&str]]) {
    let (held, status) = open(gateway, requests[0]).await;
    assert_eq!(status, 200, "{requests:?}");
    for lines in requests {
        assert_eq!(open(gateway, lines).await.1, 429, "{lines:?} is {address}'s");
    }
    assert!(gateway.process.stderr().contains(&format!("address={address} ")), "{}", gateway.process.stderr());
    drop(held);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}

#[tokio::test]
async fn behind_trusted_networks_the_first_stranger_from_the_right_is_the_client() {
    let gateway = start("trusted = [\"127.0.0.1\", \"10.0.0.0/8\"]").await;
    let of_7: &[&[&str]] = &[
        &["203.0.113.7"],
        &["203.0.113.7, 10.0.0.2"],
        // What stands left of it was written by the client.
        &["203.0.113.8, 203.0.113.7"],
        &["10.0.0.1, 203.0.113.7, 10.9.9.9"],
        &["203.0.113.8", "203.0.113.7", "10.0.0.2"],
        &["\"forged\", unknown, 203.0.113.7:4711"],
    ];
    are_of(&gateway, "203.0.113.7", of_7).await;
    are_of(&gateway, "203.0.113.8", &[&["203.0.113.7, 203.0.113.8"]]).await;
    are_of(&gateway, "2001:db8:1::7", &[&["[2001:db8:1::7]:443, 10.0.0.2"], &["2001:db8:1::8"]]).await;
    are_of(&gateway, "127.0.0.1", &[&[], &["unknown"], &["203.0.113.9, unknown"]]).await;
    // Others are others.
    let held = open(&gateway, &["203.0.113.7"]).await;
    assert_eq!((held.1, open(&gateway, &["203.0.113.8"]).await.1), (200, 200));
}

#[tokio::test]
async fn so_many_hops_from_the_right_is_the_client_and_what_is_left_of_it_is_forged() {
    let gateway = start("hops = 1").await;
    are_of(&gateway, "203.0.113.7", &[&["203.0.113.7"], &["203.0.113.8, 203.0.113.7"], &["1.1.1.1", "203.0.113.7"]])
        .await;
    are_of(&gateway, "127.0.0.1", &[&[], &["203.0.113.7, unknown"]]).await;
    let gateway = start("hops = 2").await;
    are_of(
        &gateway,
        "203.0.113.7",
        &[
            &["203.0.113.7, 198.51.100.1"],
            &["203.0.113.8, 203.0.113.7, 198.51.100.2"],
            &["6.6.6.6", "203.0.113.7", "198.51.100.3"],
        ],
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
    for proxy in ["", "trusted = [\"10.0.0.0/8\"]", "trusted = [\"10.0.0.0/8\"]\nhops = 3"] {
        let gateway = start(proxy).await;
        are_of(&gateway, "127.0.0.1", &[&[], &["203.0.113.7"], &["203.0.113.7, 10.0.0.1"], &["10.0.0.1"]]).await;
    }
}

#[tokio::test]
async fn whoever_publishes_is_counted_by_the_same_address() {
    let config = "[proxy]\ntrusted = [\"127.0.0.1\"]\n[limits]\npublish_rate_per_address = \"2/h\"\n";
    let gateway = Gateway::start(config).await;
    let publish = async |from: &str| {
        let headers = [("x-forwarded-for", from)];
        gateway.http.send("POST", "/channels/a/events", &headers, "x").await.status
    };
    for client in ["203.0.113.7", "203.0.113.8"] {
        let forged = format!("203.0.113.9, {client}");
        assert_eq!([publish(client).await, publish(&forged).await, publish(client).await], [200, 200, 429]);
    }
}
