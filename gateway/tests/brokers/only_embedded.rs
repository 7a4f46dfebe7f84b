//! What only the embedded broker has: a budget.

use crate::{
    ear::Ear,
    stage::{channel, config, publish},
};
use sluice_gateway::{
    broker::{Broker, Rules, Sink, memory::MemoryBroker},
    config::ByteSize,
    position::Position,
};
use std::sync::Arc;

#[tokio::test]
async fn the_embedded_broker_stays_within_its_budget_and_its_newest_events_are_kept() {
    let ear = Arc::new(Ear::default());
    let budget = ByteSize::mib(1).get();
    let broker = MemoryBroker::new(Rules::new(config()), budget, ear as Arc<dyn Sink>);
    let data = "x".repeat(1000);
    let mut last = None;
    for n in 0..5000 {
        let name = format!("m{}", n % 50);
        last = broker.publish(vec![publish(&name, &data, None)]).await.remove(0).expect("accepted").position;
    }
    let mut kept = 0;
    for n in 0..50 {
        let page = broker.read(&channel(&format!("m{n}")), Position::default(), 0, 5000).await.expect("read");
        kept += page.entries.len() * 1000;
        if n == 4999 % 50 {
            assert_eq!(page.entries.last().map(|entry| entry.at), last);
        }
    }
    assert!(kept <= budget && kept > budget / 2, "{kept} of {budget}");
}
