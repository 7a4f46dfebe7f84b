//! What a broker says, remembered and waited for.

use bytes::Bytes;
use sluice_gateway::{
    broker::{Sink, announcement::Announced},
    channel::Channel,
    position::Position,
};
use std::{sync::Mutex, time::Duration};

#[derive(Default)]
pub(crate) struct Ear(Mutex<Heard>);

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) subscribed: Vec<Channel>,
    pub(crate) announced: Vec<(String, Announced)>,
    pub(crate) cuts: usize,
    pub(crate) reachable: Option<Result<(), String>>,
    pub(crate) control: Vec<Bytes>,
}

impl Ear {
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> T {
        for _ in 0..1500 {
            if let Some(found) = look(&self.0.lock().expect("not poisoned")) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    /// Everything announced on `channel` that stands in its history.
    pub(crate) fn entries(heard: &Heard, channel: &str) -> Vec<(Position, u64, String)> {
        let entry = |(name, announced): &(String, Announced)| match announced {
            Announced::Entry { at, prev, event } if name == channel => Some((*at, *prev, event.data().to_owned())),
            _ => None,
        };
        heard.announced.iter().filter_map(entry).collect()
    }
}

impl Sink for Ear {
    fn subscribed(&self, channel: &Channel) {
        self.0.lock().expect("not poisoned").subscribed.push(channel.clone());
    }
    fn announced(&self, channel: &str, announced: Announced) {
        self.0.lock().expect("not poisoned").announced.push((channel.to_owned(), announced));
    }
    fn cut(&self, _: &mut dyn Iterator<Item = &Channel>) {
        self.0.lock().expect("not poisoned").cuts += 1;
    }
    fn control(&self, message: Bytes) {
        self.0.lock().expect("not poisoned").control.push(message);
    }
    fn reachable(&self, state: Result<(), String>) {
        self.0.lock().expect("not poisoned").reachable = Some(state);
    }
}
