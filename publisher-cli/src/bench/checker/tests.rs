//! What is found, and what is no fault.

use super::*;

/// A channel with its streams, and the next place of each.
struct Streams {
    checker: Checker,
    next: Vec<u32>,
    time: u64,
}

impl Streams {
    fn new(streams: u32) -> Self {
        let mut checker = Checker::default();
        checker.add(streams);
        Self { checker, next: vec![0; streams as usize], time: 0 }
    }

    /// Publishes so many events, all under way at a time.
    fn publish(&mut self, count: u32) -> Vec<u32> {
        self.time += 1;
        let numbers: Vec<u32> = (0..count).map(|_| self.checker.sent(0, self.time)).collect();
        self.time += 1;
        numbers.iter().for_each(|&number| self.checker.accepted(0, number, self.time, true));
        numbers
    }

    fn arrive(&mut self, stream: u32, numbers: &[u32]) {
        for &number in numbers {
            self.checker.arrived(stream, &mut self.next[stream as usize], 0, number);
        }
    }

    fn faults(&self) -> [u64; 4] {
        let Faults { lost, doubled, disordered, stray } = self.checker.faults();
        [lost, doubled, disordered, stray]
    }
}

const NONE: [u64; 4] = [0; 4];

#[test]
fn the_order_of_events_that_were_under_way_together_is_the_servers() {
    let mut streams = Streams::new(3);
    streams.publish(4);
    streams.arrive(0, &[2, 0]);
    streams.arrive(1, &[2, 0, 3, 1]);
    streams.arrive(0, &[3, 1]);
    streams.arrive(2, &[2, 0, 3, 1]);
    assert_eq!(streams.faults(), NONE);
    assert!(streams.checker.channels[0].events.is_empty(), "what all have is forgotten");
    assert!(streams.checker.channels[0].order.is_empty());
}

#[test]
fn whoever_sees_another_order_than_the_first_is_out_of_order() {
    let mut streams = Streams::new(2);
    streams.publish(3);
    streams.arrive(0, &[0, 1, 2]);
    streams.arrive(1, &[1, 0, 2]);
    assert_eq!(streams.faults(), [0, 0, 1, 0]);
}

#[test]
fn an_event_that_was_accepted_before_another_was_sent_comes_before_it() {
    let mut streams = Streams::new(1);
    let (first, second) = (streams.publish(1), streams.publish(1));
    streams.arrive(0, &[second[0], first[0]]);
    assert_eq!(streams.faults(), [0, 0, 1, 0]);
}

#[test]
fn a_server_that_only_promises_to_accept_may_order_as_it_likes() {
    let mut streams = Streams::new(1);
    for time in 0..2 {
        let number = streams.checker.sent(0, 2 * time);
        streams.checker.accepted(0, number, 2 * time + 1, false);
    }
    streams.arrive(0, &[1, 0]);
    assert_eq!(streams.faults(), NONE);
}

#[test]
fn what_did_not_come_is_lost_once_for_each_stream() {
    let mut streams = Streams::new(3);
    streams.publish(4);
    streams.arrive(0, &[0, 1, 2, 3]);
    streams.arrive(1, &[0, 3]);
    streams.arrive(2, &[0, 1]);
    assert_eq!(streams.faults(), [4, 0, 0, 0]);
}

#[test]
fn what_nobody_got_is_lost_for_all() {
    let mut streams = Streams::new(2);
    streams.publish(2);
    streams.arrive(0, &[1]);
    streams.arrive(1, &[1]);
    assert_eq!(streams.faults(), [2, 0, 0, 0]);
}

#[test]
fn what_comes_again_is_doubled_at_once_and_later() {
    let mut streams = Streams::new(2);
    streams.publish(2);
    streams.arrive(0, &[0, 0, 1]);
    streams.arrive(1, &[0, 1, 0]);
    streams.arrive(0, &[1]);
    assert_eq!(streams.faults(), [0, 3, 0, 0]);
}

#[test]
fn what_was_never_published_is_stray() {
    let mut streams = Streams::new(1);
    streams.publish(1);
    streams.arrive(0, &[0, 7]);
    let mut next = 1;
    streams.checker.arrived(0, &mut next, 9, 0);
    assert_eq!(streams.faults(), [0, 0, 0, 2]);
}

#[test]
fn what_was_refused_is_missed_by_nobody_unless_it_came_after_all() {
    let mut streams = Streams::new(2);
    let numbers = streams.publish(1);
    let refused = streams.checker.sent(0, 9);
    assert!(streams.checker.refused(0, refused));
    streams.arrive(0, &numbers);
    streams.arrive(1, &numbers);
    assert_eq!(streams.faults(), NONE);
    streams.arrive(0, &[refused]);
    assert_eq!(streams.faults(), [1, 0, 0, 0]);
    streams.arrive(1, &[refused]);
    assert_eq!(streams.faults(), NONE);
}

#[test]
fn who_leaves_has_lost_what_it_had_not_got_and_nobody_waits_for_it() {
    let mut streams = Streams::new(2);
    streams.publish(3);
    streams.arrive(0, &[0, 1, 2]);
    streams.arrive(1, &[0, 2]);
    assert_eq!(streams.checker.left(1, streams.next[1], 0), 1);
    assert_eq!(streams.faults(), [1, 0, 0, 0]);
    let numbers = streams.publish(1);
    let arrival = streams.checker.arrived(0, &mut streams.next[0], 0, numbers[0]);
    assert_eq!(arrival, Arrival { is_new: true, is_last: true });
    assert_eq!(streams.faults(), [1, 0, 0, 0]);
}
