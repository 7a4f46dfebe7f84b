//! What Sluice's own part of the way costs, without sockets: `cargo bench -p sluice-gateway`. Absolute times mean little
//! on a machine that is shared: compare with the run before, on the same machine.

#[path = "../tests/fanout/crowd.rs"]
mod crowd;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crowd::{Crowd, take};
use sluice_gateway::{
    broker::announcement,
    channel::Channel,
    event::Event,
    metrics::Metrics,
    position::Position,
    sse::{
        compress::{Encoding, Scratch},
        cursor::{Cursor, CursorWriter},
        frame::{Format, Frame},
    },
};
use std::{
    hint::black_box,
    sync::Arc,
    task::{Context, Waker},
};

const AT: Position = Position::new(1_763_712_000_000_000, 42);
const SUBSCRIBERS: usize = 1000;

fn news() -> Channel {
    Channel::new("news").expect("a name")
}

fn event() -> Event {
    Event::new(None, Bytes::from_static(&[b'x'; 100])).expect("an event")
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, format) in [("sse", Format::Sse), ("envelope", Format::Envelope), ("ndjson", Format::Ndjson)] {
        group.bench_function(name, |bencher| {
            let frame = || Frame::positioned(news(), AT, 1, event());
            bencher.iter_batched(frame, |frame| frame.bytes(format).len(), BatchSize::SmallInput);
        });
    }
    group.bench_function("announcement", |bencher| {
        let bytes = announcement::encode(AT, 1, &event());
        bencher.iter(|| announcement::decode(black_box(bytes.clone()), 1 << 16));
    });
    group.finish();
}

fn cursor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cursor");
    for channels in [1, 16, 64] {
        let names: Vec<_> = (0..channels).map(|n| Channel::new(&format!("orders.{n}")).expect("a name")).collect();
        let write = || {
            let mut cursor = CursorWriter::default();
            names.iter().for_each(|name| cursor.add(name, AT, false));
            cursor.finish().unwrap_or_default()
        };
        group.bench_function(format!("write {channels}"), |bencher| bencher.iter(write));
        let text = write();
        group.bench_function(format!("read {channels}"), |bencher| {
            bencher.iter(|| {
                let cursor = Cursor::parse(black_box(&text));
                names.iter().map(|name| cursor.find(name)).filter(|found| black_box(found) == found).count()
            });
        });
    }
    group.finish();
}

/// One event as an independent block: what a busy channel's chain makes of it is smaller, and takes no longer.
fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress");
    let order = r#"{"id":48213,"status":"packed","price":1213.54,"customer":"c-77410","at":"2026-03-01T17:20:34Z"}"#;
    let event = Event::new(None, Bytes::from_static(order.as_bytes())).expect("an event");
    let plain = Frame::positioned(news(), AT, 1, event).bytes(Format::Sse).clone();
    for encoding in Encoding::COMPRESSED {
        let mut scratch = Scratch::new(Arc::new(Metrics::new()));
        group.bench_function(encoding.as_str(), |bencher| bencher.iter(|| scratch.block(encoding, black_box(&plain))));
    }
    group.finish();
}

/// From publishing to the outboxes of all subscribers, and out of them again.
fn fan_out(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let crowd = runtime.block_on(async { Crowd::new() });
    let mut bodies: Vec<_> = (0..SUBSCRIBERS).map(|_| runtime.block_on(crowd.subscribe("news"))).collect();
    let mut group = criterion.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    group.bench_function(format!("one event to {SUBSCRIBERS} outboxes"), |bencher| {
        let mut context = Context::from_waker(Waker::noop());
        bencher.iter(|| {
            runtime.block_on(crowd.publish(&["news"], &[b'x'; 100]));
            for body in &mut bodies {
                while take(body, &mut context).is_none() {
                    std::thread::yield_now();
                }
            }
        });
    });
    group.finish();
    crowd.hub.stop();
}

criterion_group!(benches, encode, cursor, compress, fan_out);
criterion_main!(benches);
