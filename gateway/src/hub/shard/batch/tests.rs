//! Several shards that come to a channel's frames at their own pace, with clients that come, go, and are sent other
//! things in between: each client's decoder has exactly the plain bytes, after every single write.

use super::{
    super::{channel::ShardChannel, encode::Stream},
    *,
};
use crate::{
    channel::Channel,
    event::Event,
    metrics::Metrics,
    position::Position,
    sse::{
        compress::{self, Chains, Pool, testing::Reader},
        frame::{Format, Frame, GapReason},
    },
};
use proptest::prelude::*;
use std::{collections::VecDeque, sync::Arc};

const SHARDS: usize = 3;
/// The channel's index in each shard.
const INDEX: u32 = 7;

struct Client {
    wire: Wire,
    stream: Stream,
    reader: Reader,
    next: u64,
}

impl Client {
    fn new(wire: Wire, next: u64) -> Self {
        let mut reader = Reader::new(wire.encoding().as_str());
        let mut bytes = Vec::new();
        compress::open(wire.encoding(), &mut bytes);
        assert_eq!(reader.read(&bytes), b"");
        Self { wire, stream: Stream::default(), reader, next }
    }

    fn in_step(&self) -> bool {
        self.stream.is_in_step_with(INDEX)
    }
}

struct Shard {
    channel: ShardChannel,
    clients: Vec<Client>,
    /// Frames on their way to it.
    queue: VecDeque<Arc<Frame>>,
    scratch: Scratch,
}

impl Shard {
    fn plain(&self, place: u64, wire: Wire) -> Vec<u8> {
        self.channel.slots(place).flat_map(|slot| slot.frame.bytes(wire.format()).to_vec()).collect()
    }

    fn take(&mut self, frames: usize) {
        for frame in self.queue.drain(..frames.min(self.queue.len())) {
            self.channel.push(frame, 0);
        }
    }

    /// As the shared pass does it, for those clients that `takes_part` lets.
    fn pass(&mut self, takes_part: impl Fn(usize) -> bool) {
        let head = self.channel.head();
        for nth in 0..self.clients.len() {
            let client = &self.clients[nth];
            if client.next >= head || !takes_part(nth) {
                continue;
            }
            let (place, wire, in_step) = (client.next, client.wire, client.in_step());
            let nobody = || !self.clients.iter().any(|other| other.wire == wire && other.in_step());
            let batch = self.channel.batch(Which { place, wire, in_step }, nobody, &mut self.scratch);
            let plain = self.plain(place, wire);
            assert_eq!(batch.plain_bytes, plain.len() as u64);
            let client = &mut self.clients[nth];
            client.stream.go_on(INDEX, &batch);
            client.next = head;
            assert_eq!(client.reader.read(&batch.bytes), plain);
        }
    }

    /// As clients are served that are not in the pass.
    fn serve_alone(&mut self, nth: usize, together: bool) {
        let (place, wire) = (self.clients[nth].next, self.clients[nth].wire);
        let plain = self.plain(place, wire);
        if plain.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        if together {
            bytes.extend_from_slice(&self.scratch.shared_block(wire.encoding(), &plain));
        } else {
            for slot in self.channel.slots(place) {
                bytes.extend_from_slice(&slot.frame.whole_block(wire, &mut self.scratch));
            }
        }
        let client = &mut self.clients[nth];
        client.stream.diverge(wire.encoding(), &plain);
        client.next = self.channel.head();
        assert_eq!(client.reader.read(&bytes), plain);
    }

    fn say(&mut self, nth: usize, text: &[u8]) {
        let client = &mut self.clients[nth];
        let mut bytes = Vec::new();
        compress::literal(client.wire.encoding(), text, &mut bytes);
        client.stream.diverge(client.wire.encoding(), text);
        assert_eq!(client.reader.read(&bytes), text);
    }
}

struct World {
    chains: Arc<Chains>,
    metrics: Arc<Metrics>,
    shards: Vec<Shard>,
    published: u64,
}

fn news() -> Channel {
    Channel::new("news").expect("a name")
}

impl World {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new());
        let shard = || {
            let mut channel = ShardChannel::new(news(), crate::config::SlowPolicy::Disconnect);
            channel.restart(true, Position::default());
            let scratch = Scratch::new(Arc::clone(&metrics));
            Shard { channel, clients: Vec::new(), queue: VecDeque::new(), scratch }
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let chains = Arc::new(Chains::new(Arc::new(Pool::new(Arc::clone(&metrics)))));
        Self { chains, metrics, shards, published: 0 }
    }

    /// Publishes; shards in `missed` never get the frame.
    fn publish(&mut self, data: &str, missed: u8) {
        let event = Event::new(None, data.to_owned().into()).expect("valid");
        let at = Position::new(self.published + 1, self.published + 1);
        let frame = Frame::positioned(news(), at, self.published, event).numbered(&self.chains, self.published);
        let frame = Arc::new(frame);
        self.published += 1;
        for (nth, shard) in self.shards.iter_mut().enumerate() {
            if missed & (1 << nth) == 0 {
                shard.queue.push_back(Arc::clone(&frame));
            }
        }
    }

    fn compressions(&self) -> u64 {
        compress::Encoding::COMPRESSED
            .iter()
            .map(|encoding| self.metrics.compressions.with_label_values(&[encoding.as_str()]).get())
            .sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        data: String,
        missed: u8,
    },
    /// A shard takes some of its frames from its queue, and sends them to some of its clients.
    Turn {
        shard: usize,
        frames: usize,
        without: u64,
    },
    Join {
        shard: usize,
        wire: Wire,
    },
    Leave {
        shard: usize,
        nth: usize,
    },
    Say {
        shard: usize,
        nth: usize,
    },
    Alone {
        shard: usize,
        nth: usize,
        together: bool,
    },
    /// A gap that this shard alone has.
    Gap {
        shard: usize,
    },
    Trim {
        shard: usize,
    },
    /// The shard missed something and begins its ring anew.
    Anew {
        shard: usize,
    },
}

fn data() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..1000u32, 0..3usize).prop_map(|(n, of)| {
            let symbol = ["ACME", "GLOB", "INIT"][of];
            format!("{{\"order\":{n},\"symbol\":\"{symbol}\",\"price\":{}.{},\"side\":\"buy\"}}", n * 7 % 100, n % 10)
        }),
        1 => ".{0,300}".prop_map(|text| text.replace('\0', "")),
        1 => (0..40_000usize).prop_map(|length| "0123456789abcdefghij".chars().cycle().take(length).collect()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let wire = prop::sample::select(vec![
        Wire::new(Format::Sse, Encoding::Gzip),
        Wire::new(Format::Sse, Encoding::Zstd),
        Wire::new(Format::Ndjson, Encoding::Gzip),
        Wire::new(Format::Sse, Encoding::Identity),
    ]);
    let (shard, nth) = (0..SHARDS, 0..12usize);
    prop_oneof![
        30 => (data(), prop_oneof![9 => Just(0u8), 1 => any::<u8>()])
            .prop_map(|(data, missed)| Step::Publish { data, missed }),
        40 => (shard.clone(), 0..5usize, prop_oneof![2 => Just(0u64), 1 => any::<u64>()])
            .prop_map(|(shard, frames, without)| Step::Turn { shard, frames, without }),
        6 => (shard.clone(), wire).prop_map(|(shard, wire)| Step::Join { shard, wire }),
        2 => (shard.clone(), nth.clone()).prop_map(|(shard, nth)| Step::Leave { shard, nth }),
        4 => (shard.clone(), nth.clone()).prop_map(|(shard, nth)| Step::Say { shard, nth }),
        4 => (shard.clone(), nth, any::<bool>())
            .prop_map(|(shard, nth, together)| Step::Alone { shard, nth, together }),
        1 => shard.clone().prop_map(|shard| Step::Gap { shard }),
        2 => shard.clone().prop_map(|shard| Step::Trim { shard }),
        1 => shard.prop_map(|shard| Step::Anew { shard }),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Publish { data, missed } => self.publish(data, *missed),
            Step::Turn { shard, frames, without } => {
                self.shards[*shard].take(*frames);
                self.shards[*shard].pass(|nth| without >> (nth % 64) & 1 == 0);
            }
            Step::Join { shard, wire } => {
                let shard = &mut self.shards[*shard];
                shard.clients.push(Client::new(*wire, shard.channel.head()));
            }
            Step::Leave { shard, nth } => {
                let clients = &mut self.shards[*shard].clients;
                if *nth < clients.len() {
                    clients.remove(*nth);
                }
            }
            Step::Say { shard, nth } => {
                let shard = &mut self.shards[*shard];
                if *nth < shard.clients.len() {
                    shard.say(*nth, b": hb\n\n");
                }
            }
            Step::Alone { shard, nth, together } => {
                let shard = &mut self.shards[*shard];
                if *nth < shard.clients.len() {
                    shard.serve_alone(*nth, *together);
                }
            }
            Step::Gap { shard } => {
                let gap = Frame::gap(news(), GapReason::Overflow, None, None);
                self.shards[*shard].channel.push(Arc::new(gap), 0);
            }
            Step::Trim { shard } => {
                let shard = &mut self.shards[*shard];
                let needed = shard.clients.iter().map(|client| client.next).min().unwrap_or(u64::MAX);
                shard.channel.trim(0, needed, u64::MAX);
            }
            Step::Anew { shard } => {
                let shard = &mut self.shards[*shard];
                shard.pass(|_| true);
                shard.channel.restart(true, Position::default());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_client_has_the_plain_bytes_after_every_write(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        // And at the end, every stream ends as it should.
        for shard in &mut world.shards {
            shard.take(usize::MAX);
            shard.pass(|_| true);
            for client in &mut shard.clients {
                let mut bytes = Vec::new();
                client.stream.close(client.wire.encoding(), &mut bytes);
                prop_assert_eq!(client.reader.read(&bytes), b"");
                prop_assert!(client.reader.is_whole());
            }
        }
    }
}

/// Orders as an exchange has them: 170 bytes with their id.
fn order(n: u64) -> String {
    let (x, y) = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20, n.wrapping_mul(0xd1b5_4a32_d192_ed03) >> 24);
    let symbol = ["ACME", "GLOB", "INIT", "UMBR"][(x % 4) as usize];
    format!(
        "{{\"order\":{},\"symbol\":\"{symbol}\",\"price\":{}.{:02},\"quantity\":{},\"side\":\"buy\",\"venue\":\"XETR\",\
         \"account\":\"{:06x}\"}}",
        100_000 + n,
        100 + x % 900,
        y % 100,
        y % 5000,
        x & 0xff_ffff
    )
}

#[test]
fn a_busy_channel_is_compressed_once_an_event_for_all_clients_of_all_shards() {
    const EVENTS: u64 = 1000;
    for encoding in Encoding::COMPRESSED {
        let mut world = World::new();
        let wire = Wire::new(Format::Sse, encoding);
        for shard in &mut world.shards {
            shard.clients.extend((0..20).map(|_| Client::new(wire, 0)));
        }
        let (mut plain, mut bytes) = (0, 0);
        for n in 0..EVENTS {
            world.publish(&order(n), 0);
            for shard in &mut world.shards {
                let place = shard.channel.head();
                shard.take(1);
                shard.pass(|_| true);
                let batch = shard.channel.batch(Which { place, wire, in_step: true }, || false, &mut shard.scratch);
                plain += batch.plain_bytes;
                bytes += batch.bytes.len();
            }
        }
        assert_eq!(world.compressions(), EVENTS, "{encoding:?}");
        let ratio = bytes as f64 / plain as f64;
        assert!(ratio < 0.35, "{encoding:?}: {ratio}");
    }
}

#[test]
fn who_joins_or_diverges_is_in_step_from_the_next_keyframe_on() {
    for encoding in Encoding::COMPRESSED {
        let mut world = World::new();
        let wire = Wire::new(Format::Sse, encoding);
        let next = |world: &mut World, n| {
            world.publish(&order(n), 0);
            world.shards[0].take(1);
            world.shards[0].pass(|_| true);
        };
        world.shards[0].clients.push(Client::new(wire, 0));
        next(&mut world, 0);
        assert!(world.shards[0].clients[0].in_step(), "a first frame is a keyframe");
        next(&mut world, 1);
        let head = world.shards[0].channel.head();
        world.shards[0].clients.push(Client::new(wire, head));
        world.shards[0].clients.push(Client::new(wire, head));
        // Whether five seconds go by in between or not, it comes within 256 events.
        let mut since = 0;
        while !world.shards[0].clients[1].in_step() {
            next(&mut world, 2 + since);
            since += 1;
            assert!(since <= 257, "{encoding:?}");
        }
        assert!(world.shards[0].clients.iter().all(Client::in_step));
        world.shards[0].say(1, b": hb\n\n");
        next(&mut world, 1000);
        let in_step: Vec<_> = world.shards[0].clients.iter().map(Client::in_step).collect();
        assert_eq!(in_step, [true, false, true], "{encoding:?}: the others go on");
    }
}

#[test]
fn a_client_that_is_alone_with_a_chain_has_it_begin_anew_at_once() {
    let mut world = World::new();
    let wire = Wire::new(Format::Sse, Encoding::Gzip);
    world.shards[0].clients.push(Client::new(wire, 0));
    for n in 0..100 {
        world.publish(&order(n), 0);
        world.shards[0].take(1);
        world.shards[0].pass(|_| true);
        assert!(world.shards[0].clients[0].in_step());
        if n % 10 == 5 {
            world.shards[0].say(0, b": hb\n\n");
        }
    }
    assert_eq!(world.compressions(), 100, "nothing is compressed twice");
}

#[test]
fn a_plain_batch_is_all_that_waits() {
    let mut world = World::new();
    (0..3).for_each(|n| world.publish(&order(n), 0));
    let shard = &mut world.shards[0];
    shard.take(3);
    let wire = Wire::from(Format::Sse);
    let batch = shard.channel.batch(Which { place: 1, wire, in_step: false }, || true, &mut shard.scratch);
    assert_eq!(batch.bytes, shard.plain(1, wire));
    world.publish(&order(4), 0);
    let shard = &mut world.shards[0];
    shard.take(1);
    let batch = shard.channel.batch(Which { place: 1, wire, in_step: false }, || true, &mut shard.scratch);
    assert_eq!(batch.bytes, shard.plain(1, wire), "with what has come since");
    assert_eq!(world.compressions(), 0);
}
