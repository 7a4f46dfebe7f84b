//! What a kept event costs in memory.

use sluice_tests::gateway::Gateway;

const EVENTS: usize = 10_000;
const CHANNELS: usize = 100;
/// What an event of a hundred bytes may cost: its content and positions, in the history and for those who come back
/// soon, but not the buffer that its request was read into, which is 8 KiB at the least.
const MOST_BYTES: u64 = 2_500;

/// Memory of its own that a process has, in bytes.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size") * 1024
}

#[tokio::test]
async fn a_kept_event_costs_near_its_size_and_not_that_of_the_request_it_came_in() {
    let gateway = Gateway::start("").await;
    // Subscribed to, so that each is kept in both places.
    let names: Vec<_> = (0..CHANNELS).map(|nth| format!("memory-{nth}")).collect();
    let mut clients = Vec::new();
    for some in names.chunks(50) {
        let some: Vec<_> = some.iter().map(String::as_str).collect();
        clients.push(gateway.subscribe(&some).await);
    }
    gateway.publish("memory-0", "x".repeat(100)).await;
    let before = anonymous_bytes(gateway.process.id());
    for nth in 0..EVENTS {
        gateway.publish(&names[nth % CHANNELS], "x".repeat(100)).await;
    }
    let grown = anonymous_bytes(gateway.process.id()).saturating_sub(before);
    assert!(grown < MOST_BYTES * EVENTS as u64, "{} bytes an event", grown / EVENTS as u64);
}
