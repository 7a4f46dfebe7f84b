//! What both promise of a channel's history: pages, places, trimming, forgetting, forks.

use crate::stage::{channel, of_both, publish};
use bytes::Bytes;
use sluice_gateway::{
    broker::{
        Since,
        announcement::Announced,
        log::{Located, locate},
    },
    event::Event,
};
use std::time::Duration;

of_both! {
    async fn an_empty_channel_has_an_identity_that_its_first_event_follows(stage) {
        let top = stage.subscribe("fresh").await.expect("a history");
        assert!(top.seq == 0 && top.micros > 0);
        let at = stage.publish("fresh", "x").await;
        let page = stage.broker.read(&channel("fresh"), top, 0, 10).await.expect("read");
        assert_eq!((page.entries.len(), page.last, page.complete), (1, at, true));
        assert_eq!(locate(&page.entries, top), Located::At(0));
        // Joining again changes nothing.
        let again = stage.broker.join(vec![channel("fresh")]).await.expect("joined").remove(0);
        assert_eq!(again.expect("answered"), Some(at));
    }

    async fn a_page_has_what_follows_and_some_of_what_came_before(stage) {
        let mut all = Vec::new();
        for n in 0..10 {
            all.push(stage.publish("p", &n.to_string()).await);
        }
        let page = stage.broker.read(&channel("p"), all[4], 3, 2).await.expect("read");
        let places: Vec<_> = page.entries.iter().map(|entry| entry.at).collect();
        assert_eq!(places, all[2..=6]);
        assert_eq!((page.last, page.complete), (all[9], false));
        assert_eq!(page.entries[3].prev, all[4].micros);
        assert_eq!(page.entries[0].event, Event::new(Some("t"), Bytes::from_static(b"2")).expect("valid"));
        let rest = stage.broker.read(&channel("p"), all[6], 0, 100).await.expect("read");
        assert!(rest.complete && rest.entries.len() == 3);
    }

    async fn trimming_is_exact_and_positions_go_on(stage) {
        let mut all = Vec::new();
        for n in 0..12 {
            all.push(stage.publish("five.a", &n.to_string()).await);
        }
        let ends = stage.broker.ends(&channel("five.a")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last), (Some(all[7]), all[11]));
        let page = stage.broker.read(&channel("five.a"), all[2], 0, 100).await.expect("read");
        assert_eq!(locate(&page.entries, all[2]), Located::Before);
    }

    async fn trimming_is_exact_after_a_batch_too(stage) {
        // More than a node of a stream holds, of which only whole ones would go were it not exact.
        let first = stage.broker.publish(vec![publish("five.b", "first", Some("k"))]).await.remove(0).expect("accepted");
        for last in [None, Some("k")] {
            let batch = (0..150).map(|n| publish("five.b", "x", last.filter(|_| n == 149))).collect();
            let answers = stage.broker.publish(batch).await;
            let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("accepted")).collect();
            assert_eq!((answers[149].repeated, answers[149].position == first.position), (last.is_some(), last.is_some()));
            let written = answers.iter().filter(|answer| !answer.repeated).map(|answer| answer.position);
            let newest: Vec<_> = written.collect::<Vec<_>>().into_iter().rev().take(5).rev().collect();
            let ends = stage.broker.ends(&channel("five.b")).await.expect("read").expect("a history");
            assert_eq!((ends.first, Some(ends.last)), (newest[0], newest[4]));
        }
    }

    async fn what_is_older_than_the_age_goes_with_the_next_event(stage) {
        for name in ["brief.a", "brief.b"] {
            stage.publish(name, "old").await;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let new = stage.publish("brief.a", "new").await;
        let ends = stage.broker.ends(&channel("brief.a")).await.expect("read").expect("a history");
        assert_eq!((ends.first, new.seq), (Some(new), 2));
        let batch = (0..3).map(|_| publish("brief.b", "new", None)).collect();
        let new = stage.broker.publish(batch).await.remove(0).expect("accepted").position;
        let ends = stage.broker.ends(&channel("brief.b")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last.seq), (new, 4));
    }

    async fn every_since_is_the_place_before_its_first_event(stage) {
        let empty = stage.subscribe("s").await.expect("a history");
        let mut all = vec![empty];
        for n in 0..10 {
            all.push(stage.publish("s", &n.to_string()).await);
        }
        let place = async |since| stage.broker.place(&channel("s"), since).await.expect("placed");
        assert_eq!(place(Since::Earliest).await, all[0]);
        assert_eq!(place(Since::Last(3)).await, all[7]);
        assert_eq!(place(Since::Last(300)).await, all[0]);
        assert_eq!(place(Since::Ago(3_600_000_000)).await, all[0]);
        assert_eq!(place(Since::Ago(u64::MAX)).await, all[0]);
        assert_eq!(place(Since::Time(all[5].micros)).await, all[4]);
        assert_eq!(place(Since::Time(all[5].micros + 1)).await, all[5]);
        assert_eq!(place(Since::Time(u64::MAX >> 8)).await, all[10]);
    }

    async fn forgetting_leaves_the_numbers(stage) {
        let last = stage.publish("f", "x").await;
        stage.broker.forget(&channel("f")).await.expect("forgotten");
        let ends = stage.broker.ends(&channel("f")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last), (None, last));
        let next = stage.publish("f", "y").await;
        let page = stage.broker.read(&channel("f"), last, 0, 9).await.expect("read");
        assert_eq!((locate(&page.entries, last), next.seq), (Located::At(0), last.seq + 1));
    }

    async fn a_fork_is_written_down_once_and_has_everyone_read(stage) {
        let common = stage.publish("w", "x").await;
        stage.subscribe("w").await;
        for _ in 0..2 {
            stage.broker.mark_fork(&channel("w"), common).await.expect("marked");
        }
        let page = stage.broker.read(&channel("w"), common, 0, 9).await.expect("read");
        assert_eq!(page.entries.iter().map(|entry| entry.fork).collect::<Vec<_>>(), [Some(common)]);
        stage.ear.until("the mark is announced", |heard| {
            heard.announced.iter().any(|(_, announced)| matches!(announced, Announced::Look)).then_some(())
        }).await;
    }
}
