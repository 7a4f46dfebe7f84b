//! What a client presents when it comes back, and what that makes of its stream.

use sluice_tests::{
    client::{Client, Request},
    cluster::Cluster,
    gateway::{Gateway, events_target},
    numbered::{assert_saw, cursor, publish, resume, wait_number},
    redis::Redis,
};

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";

/// Subscribes, publishes events 1 to 5 on each channel, and answers the cursor after the third of the first channel
/// (the others' stand somewhere from 0 to 5), and the one after all.
async fn left(gateway: &Gateway, channels: &[&str]) -> (String, String) {
    let client = gateway.subscribe(channels).await;
    for channel in channels {
        publish(&gateway.http, channel, 1..=5).await;
        wait_number(&client, channel, 5).await;
    }
    let third = client.read(|log| log.events[2].id.to_string());
    (third, cursor(&client))
}

#[tokio::test]
async fn whoever_comes_back_gets_what_it_missed_and_no_more() {
    let gateway = Gateway::start(CONFIG).await;
    let (third, all) = left(&gateway, &["a", "b"]).await;
    let behind = resume(&gateway, &["a", "b"], &third).await;
    let complete = resume(&gateway, &["b", "a"], &all).await;
    publish(&gateway.http, "a", 6..=6).await;
    publish(&gateway.http, "b", 6..=6).await;
    for client in [&behind, &complete] {
        wait_number(client, "a", 6).await;
        wait_number(client, "b", 6).await;
    }
    assert_saw("behind", &behind, "a", 4..=6, &[]);
    assert_saw("behind", &behind, "b", 1..=6, &[]);
    assert_saw("complete", &complete, "a", 6..=6, &[]);
    assert_saw("complete", &complete, "b", 6..=6, &[]);
}

#[tokio::test]
async fn rule_12_the_first_id_is_where_the_client_stands_and_not_the_top() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let (third, _) = left(&cluster.gateways[0], &["a"]).await;
    for gateway in &cluster.gateways {
        let request = gateway.events(&["a"]).header("Last-Event-ID", &third).keeping_body();
        let client = Client::once(request).await;
        wait_number(&client, "a", 5).await;
        let text = client.read(|log| log.text());
        let first = text.lines().find_map(|line| line.strip_prefix("id: "));
        assert_eq!(first, Some(&*third), "{text}");
    }
    // And of one that has seen nothing yet, where its stream begins: what follows that id is all that it was sent.
    let request = cluster.gateways[1].events(&["a"]).keeping_body();
    let client = Client::once(request).await;
    let id = cursor(&client);
    assert!(!id.is_empty(), "one that has received nothing can resume as well");
    drop(client);
    publish(&cluster.gateways[0].http, "a", 6..=8).await;
    let client = resume(&cluster.gateways[0], &["a"], &id).await;
    wait_number(&client, "a", 8).await;
    assert_saw("one that had seen nothing", &client, "a", 6..=8, &[]);
}

#[tokio::test]
async fn what_cannot_be_read_is_one_gap_for_each_channel_and_the_stream_goes_on_live() {
    let gateway = Gateway::start(CONFIG).await;
    let (_, all) = left(&gateway, &["a", "b"]).await;
    let (first, second) = all.split_once(',').expect("two components");
    let upper = all.to_uppercase();
    for garbage in ["nonsense", "1234", "~", ",,,,", "%00", "a.b-c", &upper] {
        let client = resume(&gateway, &["a", "b"], garbage).await;
        publish(&gateway.http, "a", 6..=6).await;
        gateway.publish("a", "marker").await;
        gateway.publish("b", "marker").await;
        client.wait("both markers", |log| log.data().filter(|&data| data == "marker").count() == 2).await;
        client.read(|log| {
            for channel in ["a", "b"] {
                let gaps = sluice_tests::numbered::saw(log, channel).1;
                assert_eq!(gaps, ["cursor"], "{garbage:?} on {channel}: {:?}", log.events);
            }
            let is_gap = |place: usize| log.events[place].event == "gap";
            assert!(is_gap(0) && is_gap(1), "the gaps come first: {:?}", log.events);
        });
    }
    // The second component is cut anywhere within; which of the two channels it names is the gateway's choice.
    for cut in 1..second.len() - 1 {
        let client = resume(&gateway, &["a", "b"], &format!("{first},{}", &second[..cut])).await;
        gateway.publish("a", "marker").await;
        gateway.publish("b", "marker").await;
        client.wait("both markers", |log| log.data().any(|data| data == "marker")).await;
        let told = |log: &sluice_tests::client::Log| log.events.iter().filter(|event| event.event == "gap").count();
        client.wait(&format!("a gap, cut at {cut} of {all}"), |log| told(log) >= 1).await;
        assert_eq!(client.read(told), 1, "cut at {cut} of {all}");
    }
}

#[tokio::test]
async fn a_cursor_that_left_channels_out_makes_a_gap_of_what_it_lacks_and_resumes_the_rest() {
    let gateway = Gateway::start(CONFIG).await;
    let (third, _) = left(&gateway, &["a"]).await;
    publish(&gateway.http, "b", 1..=5).await;
    let client = resume(&gateway, &["a", "b"], &format!("{third}~")).await;
    publish(&gateway.http, "a", 6..=6).await;
    publish(&gateway.http, "b", 6..=6).await;
    wait_number(&client, "a", 6).await;
    wait_number(&client, "b", 6).await;
    assert_saw("the rest", &client, "a", 4..=6, &[]);
    assert_saw("left out", &client, "b", 6..=6, &["cursor"]);
}

#[tokio::test]
async fn a_channel_added_to_the_url_begins_live_or_as_since_says() {
    let gateway = Gateway::start(CONFIG).await;
    let (third, _) = left(&gateway, &["a"]).await;
    publish(&gateway.http, "b", 1..=5).await;
    let live = resume(&gateway, &["a", "b"], &third).await;
    let target = format!("{}&since=last:2", events_target(&["a", "b"]));
    let since = Client::once(Request::new(gateway.address, &target).header("Last-Event-ID", &third)).await;
    publish(&gateway.http, "a", 6..=6).await;
    publish(&gateway.http, "b", 6..=6).await;
    for client in [&live, &since] {
        wait_number(client, "a", 6).await;
        wait_number(client, "b", 6).await;
        assert_saw("the cursor's channel", client, "a", 4..=6, &[]);
    }
    assert_saw("live", &live, "b", 6..=6, &[]);
    assert_saw("since", &since, "b", 4..=6, &[]);
}

#[tokio::test]
async fn the_header_beats_the_query_and_the_query_serves_those_who_cannot_set_it() {
    let gateway = Gateway::start(CONFIG).await;
    let (third, all) = left(&gateway, &["a"]).await;
    let target = |id: &str| format!("/events?channel=a&lastEventId={id}");
    let header = Client::once(Request::new(gateway.address, &target(&third)).header("Last-Event-ID", &all)).await;
    let query = Client::once(Request::new(gateway.address, &target(&third))).await;
    publish(&gateway.http, "a", 6..=6).await;
    wait_number(&header, "a", 6).await;
    wait_number(&query, "a", 6).await;
    assert_saw("header", &header, "a", 6..=6, &[]);
    assert_saw("query", &query, "a", 4..=6, &[]);
}

#[tokio::test]
async fn a_cursor_from_before_a_restart_of_everything_resumes() {
    let mut cluster = Cluster::start(Redis::start_durable().await, 2, CONFIG).await;
    let (third, _) = left(&cluster.gateways[0], &["a"]).await;
    for gateway in &mut cluster.gateways {
        gateway.process.kill();
    }
    cluster.redis.kill();
    cluster.redis.restart().await;
    for gateway in &mut cluster.gateways {
        gateway.restart();
        gateway.wait_ready(sluice_tests::wait::PATIENCE).await;
    }
    let client = resume(&cluster.gateways[1], &["a"], &third).await;
    publish(&cluster.gateways[0].http, "a", 6..=7).await;
    wait_number(&client, "a", 7).await;
    assert_saw("after the restart", &client, "a", 4..=7, &[]);
}

#[tokio::test]
async fn sixty_four_channels_resume_through_nginx_on_another_replica() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let names: Vec<_> = (0..64).map(|n| format!("{n:02}.{}", "x".repeat(20))).collect();
    let channels: Vec<_> = names.iter().map(String::as_str).collect();
    let client = Client::event_source(cluster.events(&channels)).await;
    for channel in &channels {
        publish(&cluster.gateways[0].http, channel, 1..=2).await;
    }
    for channel in &channels {
        wait_number(&client, channel, 2).await;
    }
    let holder = usize::from(cluster.gateways[1].connections().await > 0);
    cluster.gateways[holder].process.kill();
    let other = &cluster.gateways[1 - holder];
    for channel in &channels {
        publish(&other.http, channel, 3..=4).await;
    }
    for channel in &channels {
        wait_number(&client, channel, 4).await;
        assert_saw("the client", &client, channel, 1..=4, &[]);
    }
    client.read(|log| assert!(log.ends.len() == 1, "it came back once: {:?}", log.ends));
}
