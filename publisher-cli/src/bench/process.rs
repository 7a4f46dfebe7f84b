//! What the measured processes cost: CPU time and memory, as `/proc` has them.

use std::{collections::BTreeMap, fs, str::FromStr};

/// The unit of `/proc/PID/stat` on every architecture that Linux runs on today.
const NS_PER_TICK: u64 = 10_000_000;

/// A process to measure.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').unwrap_or((text, text));
        let pid = pid.parse().map_err(|_| format!("PID or NAME=PID, such as 4711 or redis=4711, not {text:?}"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// A process at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Time on a CPU of each thread that lives.
    threads: BTreeMap<String, u64>,
    /// User and system time of all threads that ever lived, to 20 ms.
    total_ns: u64,
    /// When it was started, in ticks: another process may get the number of one that has ended.
    started: u64,
    pub(super) rss_kib: u64,
    /// The part of it that is no file's.
    pub(super) anonymous_kib: u64,
}

impl Process {
    pub(super) fn own() -> Self {
        Self { name: "bench".into(), pid: std::process::id() }
    }

    /// Looks at it now, if it runs: one that has ended, and is not awaited yet, has a number but no memory.
    pub(super) fn sample(&self) -> Option<Sample> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        let status = read("status");
        let kib = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        };
        // The name in brackets may hold spaces and brackets itself.
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = field(11)? + field(12)?;
        Some(Sample {
            threads: self.threads(),
            total_ns: ticks * NS_PER_TICK,
            started: field(19)?,
            rss_kib: kib("VmRSS")?,
            anonymous_kib: kib("RssAnon")?,
        })
    }

    fn threads(&self) -> BTreeMap<String, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let running = tasks.filter_map(|task| {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let running_ns = schedstat.split(' ').next()?.parse().ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), running_ns))
        });
        running.collect()
    }
}

impl Sample {
    /// Whether this is the process that the other one is of.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.started == other.started
    }

    /// CPU time between an earlier sample of the same process and this one. The threads' own clocks are exact, but a thread that ended in
    /// between has taken its along: then the total counts, which is rounded.
    pub(super) fn cpu_ns_since(&self, before: &Self) -> u64 {
        let of_threads: u64 =
            self.threads.iter().map(|(id, ns)| ns - before.threads.get(id).unwrap_or(&0).min(ns)).sum();
        let total = self.total_ns.saturating_sub(before.total_ns);
        let is_complete = !self.threads.is_empty() && before.threads.keys().all(|id| self.threads.contains_key(id));
        if is_complete && of_threads + 4 * NS_PER_TICK > total { of_threads } else { total }
    }
}

/// Pages of kernel memory that TCP's buffers take, on the whole machine: no process has them in its count.
pub(super) fn tcp_pages() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split(' ').skip_while(|&word| word != "mem").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_if_it_is_given_one() {
        let process: Process = "redis=7".parse().expect("a process");
        assert_eq!((process.name.as_str(), process.pid), ("redis", 7));
        assert_eq!("7".parse::<Process>().expect("a process").name, "7");
        assert!("redis".parse::<Process>().is_err());
    }

    #[test]
    fn work_is_seen_also_of_threads_that_have_ended() {
        let process = Process::own();
        let work = || {
            let before = std::time::Instant::now();
            let mut sum = 0u64;
            while before.elapsed().as_millis() < 150 {
                sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
            }
        };
        let before = process.sample().expect("runs");
        assert!(before.rss_kib > 0 && before.anonymous_kib > 0 && before.rss_kib >= before.anonymous_kib);
        std::thread::spawn(work).join().expect("works");
        // The machine may be shared, so that it ran for a part of the time only.
        assert!(process.sample().expect("runs").cpu_ns_since(&before) >= 20_000_000);
    }
}
