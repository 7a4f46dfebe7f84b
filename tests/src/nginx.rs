//! nginx with the configuration that the repository gives to operators: the file as it is, but for the address that it
//! listens on, the replicas that it lists, and places for its own files.

use crate::{
    http::Http,
    ports,
    process::{Process, directory, repository},
    wait,
};
use std::{net::SocketAddr, process::Command};
use tempfile::TempDir;

/// The line of the configuration that says where it listens.
const LISTEN: &str = "listen 80;";
/// The line after which its own files' places are named.
const HTTP: &str = "http {";
/// Where its configuration has it write what is wrong.
const ERRORS: &str = "error_log /var/log/nginx/error.log";
/// The file that lists the replicas, beside the configuration.
const REPLICAS: &str = "replicas.conf";

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    pub address: SocketAddr,
    pub http: Http,
    pub process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// # Panics
    /// When the repository's file is not as this expects, or nginx does not start.
    pub async fn start(replicas: &[SocketAddr]) -> Self {
        Self::start_with(replicas, &[]).await
    }

    /// The same with lines that stand there as comments, each as it stands there and as it is to be.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    pub async fn start_with(replicas: &[SocketAddr], uncommented: &[(&str, &str)]) -> Self {
        let (directory, address) = (directory(), ports::free());
        let at = |name: &str| directory.path().join(name);
        let original = std::fs::read_to_string(repository().join("nginx/sluice.conf")).expect("nginx/sluice.conf");
        let listed = std::fs::read_to_string(repository().join("nginx").join(REPLICAS)).expect("nginx/replicas.conf");
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| {
            let path = at(kind);
            format!("    {kind}_temp_path {};\n", path.display())
        });
        let text = replaced(&original, LISTEN, &format!("listen {address};"));
        let text = replaced(&text, HTTP, &format!("{HTTP}\n    access_log off;\n{}", places.concat()));
        let mut text = replaced(&text, ERRORS, "error_log stderr");
        for (line, by) in uncommented {
            text = replaced(&text, line, by);
        }
        std::fs::write(at("sluice.conf"), text).expect("a file");
        let parameters = parameters(&listed);
        let servers: String = replicas.iter().map(|replica| format!("server {replica}{parameters};\n")).collect();
        std::fs::write(at(REPLICAS), servers).expect("a file");

        let mut main = format!("daemon off; pid {};", at("nginx.pid").display());
        if rustix::process::geteuid().is_root() {
            // Its workers would have no right to the directory of a test that root runs.
            main.push_str(" user root;");
        }
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(at("sluice.conf")).args(["-e", "stderr", "-g", &main]);
        let process = Process::start("nginx", &mut command, directory.path()).with_children();
        wait::until("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        Self { address, http: Http::new(address), process, _directory: directory }
    }
}

/// What operators are shown to write after a replica's address.
fn parameters(listed: &str) -> &str {
    let first = listed.lines().find_map(|line| line.strip_prefix("server ")).expect("nginx/replicas.conf lists one");
    first.find(' ').map_or("", |at| &first[at..]).trim_end_matches(';')
}

fn replaced(text: &str, line: &str, by: &str) -> String {
    assert_eq!(text.matches(line).count(), 1, "nginx/sluice.conf has {line:?} once");
    text.replace(line, by)
}
