//! Which slots the masters of a cluster say that each of them has.

use super::{ANSWER_WITHIN, Known, Layout, Master, Refresh, SLOTS, pause, tell};
use crate::broker::redis::target::{Address, Target};
use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult, aio::MultiplexedConnection, cmd};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    time::Duration,
};
use tokio::sync::watch;

pub(super) async fn watch(
    target: Target,
    seeds: Vec<Address>,
    timeout: Duration,
    refresh: Refresh,
    known: watch::Sender<Known>,
) {
    let mut connections: HashMap<Address, MultiplexedConnection> = HashMap::new();
    let mut masters: Vec<Address> = Vec::new();
    loop {
        let mut views = Vec::new();
        let mut failures = Vec::new();
        // Who was found through the seeds; the seeds again where nobody of them answers.
        for asked in [masters.clone(), seeds.clone()] {
            let asking = asked.iter().map(|address| {
                let open = connections.remove(address);
                let target = &target;
                async move { (address.clone(), ask(target, address, open, timeout).await) }
            });
            for (address, answer) in join_all(asking).await {
                match answer {
                    Ok((connection, text)) => {
                        connections.insert(address.clone(), connection);
                        views.push(View::read(&text, &address, target.prefers_names()));
                    }
                    Err(error) => failures.push(format!("{address}: {error}")),
                }
            }
            if !views.is_empty() {
                break;
            }
        }
        let now = match merge(&views) {
            Some(layout) => {
                masters = layout.masters.iter().filter_map(|master| master.address.clone()).collect();
                Ok(layout)
            }
            None if views.is_empty() => Err(failures.join("; ")),
            None => Err("it is no cluster, or none of its servers has slots".to_owned()),
        };
        connections.retain(|address, _| masters.contains(address));
        tell(&known, now);
        tokio::select! {
            () = known.closed() => return,
            () = pause(&refresh, failures.is_empty()) => {}
        }
    }
}

async fn ask(
    target: &Target,
    address: &Address,
    open: Option<MultiplexedConnection>,
    timeout: Duration,
) -> RedisResult<(MultiplexedConnection, String)> {
    let mut connection = match open {
        Some(connection) => connection,
        None => {
            let timeout = timeout.min(ANSWER_WITHIN);
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
            let client = Client::open(target.server(Some(address)))?;
            client.get_multiplexed_async_connection_with_config(&config).await?
        }
    };
    let text = cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
    let text = text.map_err(|error: redis::RedisError| match error.code() {
        Some("NOPERM") => (ErrorKind::Client, "the user lacks the right +cluster|nodes").into(),
        _ => error,
    })?;
    Ok((connection, text))
}

/// What one server says of all of them.
#[derive(Debug, Default)]
struct View {
    claims: Vec<Claim>,
    /// Slots on their way to or from the server that was asked.
    moving: BTreeSet<u16>,
}

#[derive(Debug)]
struct Claim {
    address: Address,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

impl View {
    /// Reads `CLUSTER NODES` as the server at `asked` answers it. What cannot be read is left out.
    fn read(text: &str, asked: &Address, prefers_names: bool) -> Self {
        let mut view = Self::default();
        for line in text.lines() {
            // <id> <host>:<port>@<bus port>[,<name>[,…]] <flags> <master> <sent> <received> <epoch> <link> <slots …>
            let mut fields = line.split(' ').skip(1);
            let (Some(place), Some(flags)) = (fields.next(), fields.next()) else { continue };
            let has = |flag: &str| flags.split(',').any(|one| one == flag);
            let mut fields = fields.skip(3);
            let Some(epoch) = fields.next().and_then(|epoch| epoch.parse().ok()) else { continue };
            let slots = fields.skip(1);
            if !has("master") || has("noaddr") || has("handshake") {
                continue;
            }
            let Some(address) = read_address(place, asked, prefers_names) else { continue };
            let mut claim = Claim { address, epoch, slots: Vec::new() };
            for slot in slots {
                match slot.strip_prefix('[') {
                    // [<slot>->-<to>] and [<slot>-<-<from>], of the server that was asked alone.
                    Some(moving) => {
                        let number = moving.split('-').next().and_then(|number| number.parse::<u16>().ok());
                        view.moving.extend(number.filter(|&slot| slot < SLOTS));
                    }
                    None => claim.slots.extend(range(slot)),
                }
            }
            view.claims.push(claim);
        }
        view
    }
}

fn read_address(place: &str, asked: &Address, prefers_names: bool) -> Option<Address> {
    let (address, rest) = place.split_once('@').unwrap_or((place, ""));
    let name = rest.split(',').nth(1).filter(|name| prefers_names && !name.is_empty());
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let host = match (name, host.trim_matches(['[', ']'])) {
        (Some(name), _) => name,
        // One that has not met another does not know its own address.
        (None, "") => &asked.host,
        (None, host) => host,
    };
    Some(Address { host: host.to_owned(), port })
}

fn range(slots: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some(first..=last)
}

/// One layout of all views; `None` if nobody has a slot.
fn merge(views: &[View]) -> Option<Layout> {
    let mut owners: Vec<Option<(u64, &Address)>> = vec![None; usize::from(SLOTS)];
    let mut all = BTreeSet::new();
    for claim in views.iter().flat_map(|view| &view.claims) {
        all.insert(&claim.address);
        for slot in claim.slots.iter().cloned().flatten() {
            let owner = &mut owners[usize::from(slot)];
            if owner.is_none_or(|(epoch, _)| epoch < claim.epoch) {
                *owner = Some((claim.epoch, &claim.address));
            }
        }
    }
    let moving: BTreeSet<u16> = views.iter().flat_map(|view| &view.moving).copied().collect();
    let mut masters: BTreeMap<&Address, Master> = all
        .into_iter()
        .map(|address| (address, Master { address: Some(address.clone()), slots: Vec::new(), moving: Vec::new() }))
        .collect();
    for (slot, owner) in (0..SLOTS).zip(owners) {
        let Some(master) = owner.and_then(|(_, address)| masters.get_mut(address)) else { continue };
        match master.slots.last_mut() {
            Some(last) if *last.end() + 1 == slot => *last = *last.start()..=slot,
            _ => master.slots.push(slot..=slot),
        }
        if moving.contains(&slot) {
            master.moving.push(slot);
        }
    }
    let masters: Vec<_> = masters.into_values().collect();
    masters.iter().any(|master| !master.slots.is_empty()).then_some(Layout { masters, cluster: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "127.0.0.1".to_owned(), port }
    }

    fn view(text: &str, port: u16) -> View {
        View::read(text, &at(port), false)
    }

    const A: &str = "\
        aa :7001@17001 myself,master - 0 0 1 connected 0-5460 [77->-bb]\n\
        bb 127.0.0.1:7002@17002,name.b master - 0 0 2 connected 5461-10922\n\
        cc 127.0.0.1:7003@17003 master - 0 0 3 connected 10923-16383\n\
        dd 127.0.0.1:7004@17004 slave aa 0 0 1 connected\n\
        ee 127.0.0.1:7005@17005 master - 0 0 0 connected\n\
        ff :0@0 master,noaddr - 0 0 9 disconnected 5\n";

    #[test]
    fn masters_and_their_slots() {
        let layout = merge(&[view(A, 7001)]).expect("a layout");
        let ports: Vec<_> = layout.masters.iter().map(|master| master.address.as_ref().map(|a| a.port)).collect();
        assert_eq!(ports, [7001, 7002, 7003, 7005].map(Some), "one without slots too, as slots may move to it");
        let counts: Vec<_> = layout.masters.iter().map(Master::slot_count).collect();
        assert_eq!(counts, [5461, 5462, 5461, 0]);
        assert_eq!(layout.masters[0].moving, [77]);
        let named = merge(&[View::read(A, &at(7001), true)]).expect("a layout");
        assert!(named.masters.iter().any(|master| master.address.as_ref().is_some_and(|a| a.host == "name.b")));
    }

    #[test]
    fn the_later_epoch_holds() {
        // 7001 was cut off, and does not know that 7004 was promoted in its place.
        let b = "bb 127.0.0.1:7002@1 myself,master - 0 0 2 connected 5461-10922\n\
                 dd 127.0.0.1:7004@1 master - 0 0 7 connected 0-5460\n\
                 aa 127.0.0.1:7001@1 master,fail - 0 0 1 connected\n\
                 cc 127.0.0.1:7003@1 master - 0 0 3 connected 10923-16383\n";
        for views in [[view(A, 7001), view(b, 7002)], [view(b, 7002), view(A, 7001)]] {
            let layout = merge(&views).expect("a layout");
            let count = |port| {
                let master = layout.masters.iter().find(|master| master.address == Some(at(port)));
                master.map_or(0, Master::slot_count)
            };
            assert_eq!((count(7001), count(7004)), (0, 5461));
        }
    }

    #[test]
    fn what_is_no_cluster_is_none() {
        assert_eq!(merge(&[view("aa :7001@17001 myself,master - 0 0 0 connected", 7001)]), None);
        assert_eq!(merge(&[view("", 7001), view("x\n \n1 2 3", 7001)]), None);
        assert_eq!(merge(&[view("aa :1@1 master - 0 0 1 up 9-3 70000 16384 [x] [1-", 7001)]), None);
    }
}
