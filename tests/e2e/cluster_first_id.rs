//! The first id of a stream is where its client stands, not where the channel does: a cut in mid-replay loses nothing.

use sluice_tests::{check::payload, client::Client, cluster::Cluster, redis::Redis};

#[tokio::test]
async fn the_first_id_of_a_resumed_stream_is_the_cursor_that_it_came_with() {
    let cluster = Cluster::start(Redis::start().await, 2, "").await;
    let client = Client::once(cluster.gateways[0].events(&["a"])).await;
    client.wait("the first id", |log| !log.last_event_id.is_empty()).await;
    let cursor = client.read(|log| log.last_event_id.clone());
    drop(client);
    for number in 1..=3 {
        cluster.gateways[0].publish("a", payload("a", number)).await;
    }
    // The other replica has nothing of this channel in memory, so that it has to read while the client waits.
    let request = cluster.gateways[1].events(&["a"]).keeping_body().header("Last-Event-ID", &cursor);
    let resumed = Client::once(request).await;
    resumed.wait_events(3).await;
    resumed.read(|log| {
        let text = log.text();
        let first = text.lines().find_map(|line| line.strip_prefix("id: "));
        assert_eq!(first, Some(cursor.as_str()), "{text}");
        assert_eq!(log.data().collect::<Vec<_>>(), ["a 1", "a 2", "a 3"]);
    });
}
