//! Which master each channel is at, kept as the topology says, and subscriptions moved along with their slots.

use super::{
    Shared,
    link::{Want, Wanted},
    node::{Node, name},
    target::Address,
    topology::{Known, Layout, SLOTS, slot},
};
use crate::channel::Channel;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// How often the tops of channels are compared whose slots are moving: until the new owner has its subscriptions, what it
/// announces reaches nobody.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Slots without an owner.
const NOBODY: u16 = u16::MAX;

/// Who has which slot, at one moment.
#[derive(Default)]
pub(super) struct Routing {
    nodes: Vec<Arc<Node>>,
    /// By slot, an index into `nodes`; `None` while there is but one for all.
    owners: Option<Box<[u16]>>,
}

impl Routing {
    /// The master that has a key, a channel or its pub/sub channel.
    pub(super) fn of(&self, name: &str) -> Option<&Arc<Node>> {
        self.owner(name).and_then(|index| self.nodes.get(index))
    }

    /// The same as a number, by which names of one master can be told.
    pub(super) fn owner(&self, name: &str) -> Option<usize> {
        match &self.owners {
            None => (!self.nodes.is_empty()).then_some(0),
            Some(owners) => match owners[usize::from(slot(name.as_bytes()))] {
                NOBODY => None,
                index => Some(usize::from(index)),
            },
        }
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Whether everything is at one master.
    pub(super) fn only(&self) -> Option<&Arc<Node>> {
        if self.owners.is_none() { self.nodes.first() } else { None }
    }

    /// The master at `host:port`, where an empty host is `beside`'s.
    pub(super) fn at(&self, place: &str, beside: &Node) -> Option<&Arc<Node>> {
        let (host, port) = place.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let host = if host.is_empty() { beside.address.as_ref()?.host.as_str() } else { host };
        let port: u16 = port.parse().ok()?;
        let is_it = |node: &&Arc<Node>| {
            node.address.as_ref().is_some_and(|address| address.host == host && address.port == port)
        };
        // By its port alone if it says its address and is known by name, or the other way round.
        let same_port = |node: &&Arc<Node>| node.address.as_ref().is_some_and(|address| address.port == port);
        let mut of_port = self.nodes.iter().filter(same_port);
        self.nodes.iter().find(is_it).or_else(|| of_port.next().filter(|_| of_port.next().is_none()))
    }
}

/// Keeps the routing until nobody wants anything any more.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut layouts: watch::Receiver<Known>,
    mut wants: mpsc::UnboundedReceiver<Want>,
    routing: watch::Sender<Arc<Routing>>,
) {
    let mut router = Router { shared, wanted: HashSet::from([Wanted::Control]), moving: HashSet::new(), routing };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    router.follow(&layouts.borrow_and_update().clone());
    loop {
        let any_moving = !router.moving.is_empty();
        tokio::select! {
            want = wants.recv() => match want {
                Some(want) => router.want(want),
                None => break,
            },
            changed = layouts.changed() => {
                if changed.is_err() {
                    break;
                }
                let known = layouts.borrow_and_update().clone();
                router.follow(&known);
            }
            _ = look.tick(), if any_moving => router.look_at_moving(),
        }
    }
    for node in router.routing.borrow().nodes() {
        node.leave();
    }
}

struct Router {
    shared: Arc<Shared>,
    wanted: HashSet<Wanted>,
    moving: HashSet<u16>,
    routing: watch::Sender<Arc<Routing>>,
}

impl Router {
    fn want(&mut self, want: Want) {
        let routing = self.routing.borrow();
        let (wanted, subscribe) = match &want {
            Want::Subscribe(wanted) => (wanted.clone(), true),
            Want::Unsubscribe(wanted) => (wanted.clone(), false),
        };
        if let Some(node) = routing.of(&wanted.name(&self.shared.names)) {
            node.want(want);
        }
        if subscribe {
            self.wanted.insert(wanted);
        } else {
            self.wanted.remove(&wanted);
        }
    }

    fn follow(&mut self, known: &Known) {
        let layout = match known {
            Ok(layout) => layout,
            Err(why) => return self.shared.reach.no_layout(why),
        };
        let before = Arc::clone(&self.routing.borrow());
        // Before there are links that say how they fare.
        self.shared
            .reach
            .masters(layout.masters.iter().map(|master| (name(master.address.as_ref()), master.slot_count())));
        let mut kept: HashMap<Option<Address>, Arc<Node>> =
            before.nodes.iter().map(|node| (node.address.clone(), Arc::clone(node))).collect();
        let mut nodes = Vec::with_capacity(layout.masters.len());
        for master in &layout.masters {
            let node = match kept.remove(&master.address) {
                Some(node) => node,
                None => match Node::start(&self.shared, master.address.clone(), layout.cluster) {
                    Ok(node) => Arc::new(node),
                    // Its address was read from a server, so this cannot be; the next look may say another.
                    Err(error) => {
                        tracing::error!(%error, "a master cannot be used");
                        continue;
                    }
                },
            };
            nodes.push(node);
        }
        let owners = layout.cluster.then(|| owners(layout, &nodes));
        let after = Arc::new(Routing { nodes, owners });
        if !before.nodes.is_empty()
            && before.nodes.iter().map(|n| &n.address).ne(after.nodes.iter().map(|n| &n.address))
        {
            let masters: Vec<_> = after.nodes.iter().map(|node| node.server.name.as_str()).collect();
            tracing::info!(?masters, "the masters of redis have changed");
        }
        self.moving = layout.masters.iter().flat_map(|master| &master.moving).copied().collect();
        self.routing.send_replace(Arc::clone(&after));
        self.move_subscriptions(&before, &after);
        for gone in kept.into_values() {
            // In this order: what its link says after it was left it takes back itself.
            gone.leave();
            self.shared.metrics.forget_redis(&gone.server.name);
        }
    }

    fn move_subscriptions(&self, before: &Routing, after: &Routing) {
        let mut moved = Vec::new();
        for wanted in &self.wanted {
            let name = wanted.name(&self.shared.names);
            let (from, to) = (before.of(&name), after.of(&name));
            if from.map(Arc::as_ptr) == to.map(Arc::as_ptr) {
                continue;
            }
            if let Some(from) = from {
                from.want(Want::Unsubscribe(wanted.clone()));
                moved.push(wanted);
            }
            if let Some(to) = to {
                to.want(Want::Subscribe(wanted.clone()));
            }
        }
        if moved.is_empty() {
            return;
        }
        let mut channels = moved.into_iter().filter_map(|wanted| match wanted {
            Wanted::Channel(channel) => Some(channel),
            Wanted::Control => None,
        });
        self.shared.sink.cut(&mut channels);
    }

    fn look_at_moving(&self) {
        let is_moving = |channel: &&Channel| self.moving.contains(&slot(self.shared.names.pubsub(channel).as_bytes()));
        let channels = self.wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Channel(channel) => Some(channel),
            Wanted::Control => None,
        });
        for channel in channels.filter(is_moving) {
            self.shared.sink.subscribed(channel);
        }
    }
}

fn owners(layout: &Layout, nodes: &[Arc<Node>]) -> Box<[u16]> {
    let mut owners = vec![NOBODY; usize::from(SLOTS)];
    for (index, node) in (0..NOBODY).zip(nodes) {
        let master = layout.masters.iter().find(|master| master.address == node.address);
        for slot in master.into_iter().flat_map(|master| master.slots.iter().cloned().flatten()) {
            owners[usize::from(slot)] = index;
        }
    }
    owners.into()
}
