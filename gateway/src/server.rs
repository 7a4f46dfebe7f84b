//! The gateway as a whole: made of its parts, run, drained and stopped.

use crate::{
    auth::Auth,
    broker::{
        Broker, Rules, Sink,
        memory::MemoryBroker,
        redis::{InvalidRedis, RedisBroker},
    },
    config::Config,
    edge::tls::{InvalidFile, Tls, reload::Change},
    http::{App, accept, admin},
    hub::Hub,
    lifecycle::Phase,
    metrics::Metrics,
    traces::{InvalidTraces, Traces},
};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};

/// How often a drain looks whether streams are left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a drain says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long a stop waits for requests of connections that came last.
const LAST_REQUESTS: Duration = Duration::from_millis(500);
/// How long a stop waits for answers under way.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long a stop waits until other replicas can take over what only one of them does.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The sockets that the gateway serves, bound before anything is started.
pub struct Listeners {
    pub public: TcpListener,
    pub admin: std::net::TcpListener,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key} = {address} cannot be bound: {error}")]
    Bind { key: &'static str, address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Redis(#[from] InvalidRedis),
    #[error("a key cannot be used: {0}")]
    Key(#[from] crate::auth::key::InvalidKey),
    #[error(transparent)]
    Tls(#[from] InvalidFile),
    #[error(transparent)]
    Traces(#[from] InvalidTraces),
    #[error("a thread or poller cannot be made: {0}")]
    Thread(#[from] io::Error),
}

impl Listeners {
    /// Binds both ports. Needs a tokio runtime.
    ///
    /// # Errors
    /// When one of them is taken or not ours.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let failed = |key, address| move |error| StartError::Bind { key, address, error };
        let public =
            accept::bind(config.listen, config.stream.write_timeout).map_err(failed("listen", config.listen))?;
        let admin =
            std::net::TcpListener::bind(config.admin_listen).map_err(failed("admin_listen", config.admin_listen))?;
        Ok(Self { public, admin })
    }
}

/// Runs the gateway until `shutdown` completes and every stream has been closed; `delay` is how long it waits before
/// it closes the first one. Dropping the future stops at once.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
    delay: Duration,
) -> Result<(), StartError> {
    let config = Arc::new(config);
    let metrics = Arc::new(Metrics::new());
    metrics.connections_limit.set(i64::try_from(config.limits.connections).unwrap_or(i64::MAX));
    metrics.outbox_limit.set(i64::try_from(config.outbox.total_bytes.get()).unwrap_or(i64::MAX));
    // 48 bits by chance: two replicas of one cluster will not be alike.
    let replica = format!("{:012x}", fastrand::u64(..1 << 48));
    let traces = Arc::new(Traces::start(&config.traces, &replica, &metrics)?);
    let hub = Hub::start(Arc::clone(&config), Arc::clone(&metrics), Arc::clone(&traces), &replica)?;
    let broker = broker(&config, &hub, &metrics, &replica)?;
    hub.attach_broker(Arc::clone(&broker));
    let auth = Auth::start(&config, &metrics, Arc::clone(hub.denied()))?;
    let tls = config.tls.files().map(Tls::load).transpose()?.map(Arc::new);
    let app = Arc::new(App::new(Arc::clone(&config), auth, Arc::clone(&hub), broker, metrics, tls));
    let lifecycle = &app.lifecycle;
    admin::start(listeners.admin, Arc::clone(&app))?;
    let accepting = tokio::spawn(accept::serve(listeners.public, Arc::clone(&app)));
    let following = tokio::spawn(follow(Arc::clone(&app)));
    tracing::info!(replica, "serving");

    let mut shutdown = pin!(shutdown);
    let asked_over_http = tokio::select! {
        () = shutdown.as_mut() => false,
        () = lifecycle.drain_asked() => true,
    };
    lifecycle.enter(Phase::Leaving);
    tokio::time::sleep(delay).await;
    lifecycle.enter(Phase::Draining);
    drain(&app, config.drain.window).await;
    if asked_over_http {
        shutdown.await;
    }
    lifecycle.enter(Phase::Closing);
    let _ = accepting.await;
    // Who has just come has a request on its way; who sends none is not waited for.
    let answered = || app.in_flight.load(Ordering::Acquire) == 0;
    wait_for(LAST_REQUESTS, || app.unfinished() == 0 && answered()).await;
    wait_for(LAST_ANSWERS, answered).await;
    // One that cannot be told is not waited for: what this replica did alone is taken over in time.
    if let Some(broker) = hub.broker() {
        let _ = tokio::time::timeout(LEAVE_WITHIN, broker.leave()).await;
    }
    following.abort();
    hub.stop();
    // It waits for requests that this runtime makes.
    let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
    lifecycle.enter(Phase::Stopped);
    Ok(())
}

fn broker(
    config: &Arc<Config>,
    hub: &Arc<Hub>,
    metrics: &Arc<Metrics>,
    replica: &str,
) -> Result<Arc<dyn Broker>, StartError> {
    let rules = Rules::new(Arc::clone(config));
    let sink = Arc::clone(hub) as Arc<dyn Sink>;
    Ok(match config.redis.target().map_err(|(key, why)| InvalidRedis { key, why })? {
        Some(target) => {
            let most = config.limits.event_bytes.get();
            let metrics = Arc::clone(metrics);
            Arc::new(RedisBroker::start(&config.redis, target, rules, replica, most, sink, metrics))
        }
        None => {
            metrics.redis_up.set(1);
            metrics.redis_reachable.set(1.0);
            Arc::new(MemoryBroker::new(rules, config.memory.max_bytes.get(), sink))
        }
    })
}

/// Keeps TLS as its files have it.
async fn follow(app: Arc<App>) {
    let Some(tls) = &app.tls else { return };
    let expires = || app.metrics.tls_expires.set(tls.expires());
    expires();
    let told = |change| {
        let result = match change {
            Change::Taken => {
                tracing::info!("the files of TLS have changed and were read again");
                "changed"
            }
            Change::Refused(wrong) => {
                tracing::error!(%wrong, "the files of TLS have changed and cannot be used; the old ones hold");
                "failed"
            }
        };
        app.metrics.tls_reloads.with_label_values(&[result]).inc();
        expires();
    };
    Arc::clone(tls).follow(told).await;
}

/// Closes all streams over `window`, and returns as soon as none is left.
async fn drain(app: &App, window: Duration) {
    let (open, began) = (app.hub.connections(), Instant::now());
    tracing::info!(connections = open, ?window, "closing streams");
    app.hub.drain(window);
    let mut said = began;
    // The last one is closed at the window's end; a second more for those on their way in when it began.
    wait_for(window + Duration::from_secs(1), || {
        let left = app.hub.connections();
        app.metrics.drain_progress.set(1.0 - (left as f64 / open.max(1) as f64).min(1.0));
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            tracing::info!(left, of = open, after = ?began.elapsed(), "closing streams");
        }
        left == 0
    })
    .await;
    tracing::info!(left = app.hub.connections(), of = open, after = ?began.elapsed(), "streams closed");
}

async fn wait_for(most: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + most;
    while !done() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
