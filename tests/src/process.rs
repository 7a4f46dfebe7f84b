//! One process, killed when its value is dropped, and its output in files: read by tests, and shown when one fails.

use crate::wait;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

/// How much of a process's output a failing test shows.
const SHOWN_BYTES: usize = 6_000;

/// A running process, or one that has ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    has_children: bool,
}

/// How long a process with children may take to end them.
const ENDS_CHILDREN_WITHIN: Duration = Duration::from_secs(5);

impl Process {
    /// Starts `command` with its output in files in `dir`, and with no standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Self {
        raise_open_files_limit();
        let (stdout, stderr) = (dir.join(format!("{name}.stdout")), dir.join(format!("{name}.stderr")));
        // Appended to, so that what a process said before it was started again is not lost.
        let file = |path: &Path| File::options().create(true).append(true).open(path).expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr)).spawn();
        let program = command.get_program().to_string_lossy();
        let child = child.unwrap_or_else(|error| panic!("{program} does not start: {error} (tests/run installs it)"));
        Self { name: name.to_owned(), child, stdout, stderr, has_children: false }
    }

    /// Has it end its own children before it is killed: those of a process that gets a `kill -9` live on.
    #[must_use]
    pub fn with_children(mut self) -> Self {
        self.has_children = true;
        self
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process alone.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.ended().is_none(), "{} has ended already", self.name);
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal to our own child");
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        // One that has ended is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits for it to end by itself.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::until_within(&what, limit, async || self.ended()).await
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }
}

impl Drop for Process {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot await, and a test's thread serves nobody")]
    fn drop(&mut self) {
        if self.has_children && self.ended().is_none() {
            self.signal(Signal::TERM);
            let begun = Instant::now();
            while self.ended().is_none() && begun.elapsed() < ENDS_CHILDREN_WITHIN {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
        if std::thread::panicking() {
            for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                show(&format!("--- {stream} of {} ---\n{}", self.name, tail(&text)));
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a failing test shows")]
fn show(text: &str) {
    eprintln!("{text}");
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(SHOWN_BYTES);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[start..]
}

/// Thousands of clients need thousands of descriptors, here and in the processes that inherit the limit.
pub fn raise_open_files_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    });
}

/// A binary of this workspace, beside the test's own executable.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("our own path");
    // target/<profile>/deps/e2e-… → target/<profile>/<name>
    let path = test.ancestors().nth(2).expect("a target directory").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first, as tests/run does", path.display());
    path
}

/// The top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent").to_owned()
}

/// A directory for one process's files, removed with the value.
///
/// # Panics
/// When none can be made.
#[must_use]
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sluice-e2e-").tempdir().expect("a temporary directory")
}
