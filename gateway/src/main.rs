//! `sluice-gateway`: arguments, configuration, logging, signals; the rest is the library's.

use anyhow::Context;
use clap::Parser;
use sluice_gateway::{
    config::{Config, LogFormat, SecretUrl, Sources},
    server::{self, Listeners},
};
use std::{io::IsTerminal, io::Write, path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// A horizontally scaled gateway for Server-Sent Events.
///
/// Without a configuration it serves on 127.0.0.1:8080 with an embedded broker. Settings come from their defaults, then
/// the file, then SLUICE_* variables (SLUICE_REDIS__URL is redis.url), then these flags.
#[derive(Parser)]
#[command(name = "sluice-gateway", version)]
struct Arguments {
    /// Where to serve events [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where to serve metrics and health [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// The Redis that connects the replicas, e.g. redis://127.0.0.1:6379
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// A TOML file of settings; --print-config shows all of them
    #[arg(long, value_name = "FILE", env = "SLUICE_CONFIG")]
    config: Option<PathBuf>,
    /// Let everybody subscribe and publish, also from other machines
    #[arg(long)]
    open: bool,
    /// Check the settings, say what is wrong with them, and exit
    #[arg(long)]
    check_config: bool,
    /// Print every setting with its meaning and default, as a TOML file
    #[arg(long)]
    print_config: bool,
}

impl Arguments {
    fn sources(&self) -> Sources {
        let flags = [("listen", &self.listen), ("admin_listen", &self.admin_listen), ("redis.url", &self.redis)];
        let mut flags: Vec<_> =
            flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))).collect();
        if self.open {
            flags.push(("auth.open".to_owned(), "true".to_owned()));
        }
        Sources { file: self.config.clone(), env: std::env::vars().collect(), flags }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // First of all: TLS needs it, and finds it nowhere else.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if arguments.print_config {
        say(&Config::reference());
        return ExitCode::SUCCESS;
    }
    let loaded = match Config::load(&arguments.sources()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            complain(&format!("{errors}"));
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        for warning in &loaded.warnings {
            complain(warning);
        }
        say("the configuration is good\n");
        return ExitCode::SUCCESS;
    }
    log(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_open_files_limit(loaded.config.limits.connections);
    match serve(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let served = runtime.block_on(async {
        let listeners = Listeners::bind(&config)?;
        let at_a_terminal = std::io::stdin().is_terminal();
        let delay = if at_a_terminal { Duration::ZERO } else { config.drain.delay };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (asked, shutdown) = tokio::sync::oneshot::channel::<()>();
        let hurried = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping; a second signal stops at once");
            let _ = asked.send(());
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        banner(&config, &listeners)?;
        let shutdown = async {
            let _ = shutdown.await;
        };
        tokio::select! {
            served = server::run(config, listeners, shutdown, delay) => served.map_err(anyhow::Error::from),
            () = hurried => Ok(()),
        }
    });
    // Whatever still runs has nothing more to do for anybody.
    runtime.shutdown_background();
    served
}

/// Descriptors beside those of streams: listeners, pollers, publishers, the links to Redis.
const OTHER_FILES: u64 = 500;

/// Every stream is an open file, and the usual limit of 1,024 is meant for programs of another kind.
fn raise_open_files_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    if let Some(allowed) = allowed
        && allowed < connections as u64 + OTHER_FILES
    {
        tracing::warn!(
            allowed,
            limits_connections = connections,
            "the limit of open files (`ulimit -Hn`) is lower than `limits.connections` needs: some will not be let in"
        );
    }
}

/// Says where to look, and who may.
fn banner(config: &Config, listeners: &Listeners) -> anyhow::Result<()> {
    let (public, admin) = (listeners.public.local_addr()?, listeners.admin.local_addr()?);
    let redis = &config.redis;
    let listed = |urls: &[SecretUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let broker = match &redis.url {
        Some(url) => url.to_string(),
        None if !redis.sentinels.is_empty() => {
            format!("{} of the sentinels {}", redis.master, listed(&redis.sentinels))
        }
        None if !redis.cluster.is_empty() => format!("the cluster of {}", listed(&redis.cluster)),
        None => "embedded: one replica, and nothing survives a restart".to_owned(),
    };
    let open = !config.auth.has_keys();
    let access = if open {
        "open: no keys are configured, so everyone who can connect may subscribe and publish"
    } else {
        "by tokens and keys, and by what [[channel]] rules give to anyone"
    };
    let scheme = if config.tls.certificate.is_some() { "https" } else { "http" };
    let console = if config.console.unwrap_or(open) {
        format!("{scheme}://{public}/")
    } else {
        "off, as keys are configured (console = true shows it)".to_owned()
    };
    let text = format!(
        "sluice-gateway {}\n\
         console  {console}\n\
         events   {scheme}://{public}/events?channel=news\n\
         admin    http://{admin}/metrics\n\
         broker   {broker}\n\
         access   {access}\n",
        env!("CARGO_PKG_VERSION"),
    );
    if config.log.format == LogFormat::Text {
        say(&text);
    } else {
        tracing::info!(%public, %admin, %broker, open, "listening");
    }
    Ok(())
}

fn log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log.level);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}

/// A closed pipe at the other end is no reason to fail.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sluice-gateway: {text}");
}
