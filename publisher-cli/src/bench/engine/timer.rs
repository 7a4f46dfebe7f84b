//! Waiting to the microsecond: the poller's own timeout is in milliseconds, which would show in the latencies.

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    fd::{AsRawFd, OwnedFd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use std::{io, time::Duration};

#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    /// When it will ring, if it is set.
    set_to: Option<u64>,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, set_to: None })
    }

    /// Sees to it that the poller returns at `wake`, and gives the timeout to poll with.
    pub(super) fn set(&mut self, wake: u64, now: u64) -> io::Result<Option<Duration>> {
        if wake <= now {
            return Ok(Some(Duration::ZERO));
        }
        if self.set_to != Some(wake) {
            let left = Duration::from_nanos(wake - now);
            let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: none, it_value: value })?;
            self.set_to = Some(wake);
        }
        Ok(None)
    }

    /// The poller has returned because of it. Setting it again makes it readable anew, so it need not be read.
    pub(super) fn rang(&mut self) {
        self.set_to = None;
    }
}
