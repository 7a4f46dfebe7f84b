//! What both promise to who publishes and to who listens: answers, announcements, keys.

use crate::{
    ear::Ear,
    stage::{channel, of_both, publish},
};
use bytes::Bytes;
use sluice_gateway::{
    broker::{Accepted, announcement::Announced},
    position::Position,
};

of_both! {
    async fn announcements_come_in_the_order_of_their_numbers_and_name_the_entry_before(stage) {
        let top = stage.subscribe("a").await.expect("a history");
        let batch = (0..300).map(|n| publish("a", &n.to_string(), None)).collect();
        let answers = stage.broker.publish(batch).await;
        let entries = stage.ear.until("300 entries", |heard| {
            let entries = Ear::entries(heard, "a");
            (entries.len() == 300).then_some(entries)
        }).await;
        let mut last = top;
        for (n, (at, prev, data)) in entries.into_iter().enumerate() {
            assert!(last.is_followed_by(at, prev) && at.micros > last.micros, "{last} then {at} after {prev}");
            assert_eq!((data, answers[n].as_ref().expect("accepted").position), (n.to_string(), Some(at)));
            last = at;
        }
    }

    async fn a_batch_of_several_channels_keeps_the_order_of_each(stage) {
        // Runs of neighbours of every length up to five.
        let names = ["m.a", "m.b", "m.c"];
        let batch: Vec<_> = (0..15usize).flat_map(|n| vec![names[n % 3]; n % 5 + 1]).collect();
        for name in names {
            stage.subscribe(name).await;
        }
        let publishes = batch.iter().enumerate().map(|(n, name)| publish(name, &n.to_string(), None)).collect();
        let answers = stage.broker.publish(publishes).await;
        for name in names {
            let sent: Vec<_> = batch.iter().enumerate().filter(|(_, channel)| **channel == name).collect();
            let page = stage.broker.read(&channel(name), Position::default(), 0, 100).await.expect("read");
            let entries = stage.ear.until("all of them", |heard| {
                let entries = Ear::entries(heard, name);
                (entries.len() == sent.len()).then_some(entries)
            }).await;
            for (nth, (n, _)) in sent.into_iter().enumerate() {
                let accepted = answers[n].as_ref().expect("accepted");
                let (at, _, data) = &entries[nth];
                assert_eq!((accepted.position, accepted.repeated, at.seq), (Some(*at), false, nth as u64 + 1));
                assert_eq!((data, page.entries[nth].at), (&n.to_string(), *at));
            }
        }
    }

    async fn a_repeated_key_is_answered_alike_and_publishes_nothing(stage) {
        stage.subscribe("k").await;
        let first = stage.broker.publish(vec![publish("k", "x", Some("one"))]).await.remove(0).expect("accepted");
        let batch = vec![publish("k", "y", None), publish("k", "x", Some("one")), publish("k", "z", Some("two"))];
        let answers: Vec<_> = stage.broker.publish(batch).await.into_iter().map(|a| a.expect("accepted")).collect();
        assert_eq!((answers[1].position, answers[1].repeated), (first.position, true));
        // The key is the channel's: elsewhere it is another one.
        let other = stage.broker.publish(vec![publish("k2", "x", Some("one"))]).await.remove(0).expect("accepted");
        assert!(!other.repeated);
        let data = stage.ear.until("three entries", |heard| {
            let data: Vec<_> = Ear::entries(heard, "k").into_iter().map(|(.., data)| data).collect();
            (data.len() >= 3).then_some(data)
        }).await;
        assert_eq!(data, ["x", "y", "z"]);
    }

    async fn a_key_that_comes_twice_in_one_batch_publishes_once(stage) {
        for (name, positioned) in [("kk", true), ("off.kk", false)] {
            let keys = [Some("one"), None, Some("one"), Some("two"), Some("one"), Some("two")];
            let batch = keys.iter().enumerate().map(|(n, key)| publish(name, &n.to_string(), *key)).collect();
            let answers: Vec<_> = stage.broker.publish(batch).await.into_iter().map(|a| a.expect("accepted")).collect();
            let repeated: Vec<_> = answers.iter().map(|answer| answer.repeated).collect();
            assert_eq!(repeated, [false, false, true, false, true, true], "{name}");
            let numbers = answers.iter().map(|answer| answer.position.map(|position| position.seq));
            let expected = [1, 2, 1, 3, 1, 3].map(|seq| positioned.then_some(seq));
            assert!(numbers.eq(expected), "{answers:?}");
            assert_eq!((answers[2], answers[4].position), (Accepted { repeated: true, ..answers[0] }, answers[0].position));
        }
    }

    async fn a_channel_without_history_has_no_positions_and_keys_hold_all_the_same(stage) {
        assert_eq!(stage.subscribe("off.a").await, None);
        for key in [None, Some("k"), Some("k")] {
            let accepted = stage.broker.publish(vec![publish("off.a", "x", key)]).await.remove(0).expect("accepted");
            assert_eq!(accepted.position, None);
        }
        stage.broker.publish(vec![publish("off.a", "end", None)]).await;
        let plain = stage.ear.until("the end", |heard| {
            let plain: Vec<_> = heard.announced.iter().filter_map(|(_, announced)| match announced {
                Announced::Plain { event, published } if *published > 0 => Some(event.data().to_owned()),
                _ => None,
            }).collect();
            (plain.last()? == "end").then_some(plain)
        }).await;
        assert_eq!(plain, ["x", "x", "end"]);
        assert_eq!(stage.broker.ends(&channel("off.a")).await.expect("read"), None);
    }

    async fn a_message_to_all_replicas_comes_to_this_one_too(stage) {
        assert_eq!(stage.broker.control(Bytes::from_static(b"hello")).await.expect("sent"), 1);
        stage.ear.until("it came", |heard| heard.control.contains(&Bytes::from_static(b"hello")).then_some(())).await;
    }
}
