//! Settings: all that is wrong is reported at once, before anything is bound.

use sluice_tests::{
    gateway::{Gateway, Options, command, settings_file},
    ports,
    process::{Process, directory},
    wait,
};
use std::net::TcpListener;

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(args: &[&str], env: &[(&str, &str)]) -> Ended {
    let directory = directory();
    let mut command = command(args);
    command.envs(env.iter().copied());
    let mut process = Process::start("gateway", &mut command, directory.path());
    let code = process.end(wait::PATIENCE).await.code();
    Ended { code, stdout: process.stdout(), stderr: process.stderr() }
}

#[tokio::test]
async fn everything_that_is_wrong_is_reported_at_once_before_anything_binds() {
    let directory = directory();
    let config = "lisen = \"x\"\n[stream]\nheartbeat = \"0s\"\nretry_min = \"9s\"\n[redis]\nurll = \"redis://x\"\n";
    let file = settings_file(&directory, config);
    let file = file.to_str().expect("UTF-8");
    // Taken: if the gateway tried to bind, that is what it would complain of.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("an address").to_string();
    for check in [&["--check-config"][..], &[]] {
        let args = [&["--config", file, "--listen", &listen, "--admin-listen", &listen], check].concat();
        let ended = run(&args, &[("SLUICE_LIMITS__CONNECTIONS", "none")]).await;
        assert!(ended.code.is_some_and(|code| code != 0), "{:?}", ended.code);
        for wrong in ["lisen", "stream.heartbeat", "redis.urll", "limits.connections"] {
            assert!(ended.stderr.contains(wrong), "{wrong}: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("in use"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_config_that_is_right_passes_the_check_and_nothing_is_started() {
    let directory = directory();
    let file = settings_file(&directory, "[stream]\nheartbeat = \"5s\"\n");
    let ended = run(&["--check-config", "--config", file.to_str().expect("UTF-8")], &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_an_error() {
    let ended = run(&["--check-config", "--config", "/nonexistent/sluice.toml"], &[]).await;
    assert!(
        ended.code.is_some_and(|code| code != 0) && ended.stderr.contains("/nonexistent/sluice.toml"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn the_printed_reference_names_every_section_and_is_itself_a_valid_file() {
    let ended = run(&["--print-config"], &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["listen", "[redis]", "[stream]", "[outbox]", "[drain]", "[cors]", "[auth]", "heartbeat"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let directory = directory();
    let file = settings_file(&directory, &ended.stdout);
    let checked = run(&["--check-config", "--config", file.to_str().expect("UTF-8")], &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[tokio::test]
async fn a_gateway_without_keys_is_open_to_the_outside_only_when_told_to_be() {
    let admin = ports::free().to_string();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let ended = run(&["--listen", address, "--admin-listen", &admin], &[]).await;
        assert!(ended.code.is_some_and(|code| code != 0), "{address}");
        assert!(ended.stderr.contains("--open"), "says what to do: {}", ended.stderr);
    }
    let open = Options { args: vec!["--open".to_owned()], ..Options::default() };
    let options = Options { config: "[auth]\nopen = false\n".to_owned(), ..open };
    let gateway = Gateway::start_with(options).await;
    let said = gateway.process.stdout() + &gateway.process.stderr();
    assert!(said.contains("open: no keys"), "it says that it is open to all: {said}");
}

#[tokio::test]
async fn flags_beat_the_environment_which_beats_the_file() {
    let (flag, env) = (ports::free(), ports::free());
    let directory = directory();
    let file = settings_file(
        &directory,
        "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:1\"\n[stream]\nheartbeat = \"7s\"\nwrite_timeout = \"9s\"\n",
    );
    let mut command = command(&["--listen", &flag.to_string(), "--config", file.to_str().expect("UTF-8")]);
    command.env("SLUICE_LISTEN", "127.0.0.1:2").env("SLUICE_ADMIN_LISTEN", env.to_string());
    command.env("SLUICE_STREAM__HEARTBEAT", "8s").env("SLUICE_REDIS__PREFIX", "p:");
    let _process = Process::start("gateway", &mut command, directory.path());
    let admin = sluice_tests::http::Http::new(env);
    wait::until("ready", async || admin.try_send("GET", "/readyz", &[], "").await.ok().filter(|a| a.status == 200))
        .await;
    assert_eq!(sluice_tests::http::Http::new(flag).get("/connections").await.status, 200);
    let config = admin.json("/config").await;
    assert_eq!(config["stream"]["heartbeat"], "8s", "{config}");
    assert_eq!((&config["stream"]["write_timeout"], &config["redis"]["prefix"]), (&"9s".into(), &"p:".into()));
}

#[tokio::test]
async fn with_port_0_it_says_where_it_listens() {
    let directory = directory();
    let mut command = command(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let process = Process::start("gateway", &mut command, directory.path());
    let address = |name: &str| {
        let said = process.stdout();
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix("http://"));
        line.and_then(|rest| rest.split('/').next()?.parse().ok())
    };
    let public: std::net::SocketAddr = wait::until("the public address", async || address("events")).await;
    let admin = wait::until("the admin address", async || address("admin")).await;
    assert_eq!(sluice_tests::http::Http::new(public).get("/connections").await.status, 200);
    let admin = sluice_tests::http::Http::new(admin);
    wait::until("ready", async || (admin.get("/readyz").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = run(&["--listen", &address, "--admin-listen", &ports::free().to_string()], &[]).await;
    assert!(ended.code.is_some_and(|code| code != 0), "{:?}", ended.code);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}
