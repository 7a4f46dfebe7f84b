//! The subscriptions of a replica: one connection, owned and watched by a supervisor.
//!
//! The supervisor knows what is wanted and sees to it that it is in force: it connects with jittered backoff,
//! subscribes in batches, and takes a closed connection, one that does not answer, and a server whose role or history
//! changed under an open connection for the same thing, a cut. What comes is routed by the connection's own reader,
//! which never waits.

use super::{function, names::Names};
use crate::{
    broker::{Sink, announcement},
    channel::Channel,
    metrics::Metrics,
};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection, cmd};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

/// Channels in one SUBSCRIBE.
const BATCH: usize = 512;
/// How often the connection is asked whether it still stands.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The first and the longest pause before connecting again; half of each is chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

pub(super) enum Want {
    Subscribe(Channel),
    Unsubscribe(Channel),
}

pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) replica: String,
    pub(super) timeout: Duration,
    pub(super) max_event_bytes: usize,
    /// Whether it was said that the function library cannot be installed: once is enough.
    pub(super) warned: AtomicBool,
}

/// What a connection's reader tells the supervisor.
#[derive(Default)]
pub(super) struct Signals {
    disconnected: Notify,
    probed: Notify,
}

pub(super) async fn supervise(
    settings: Settings,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    mut wants: mpsc::UnboundedReceiver<Want>,
) {
    let settings = Arc::new(settings);
    let mut wanted = HashSet::new();
    let mut backoff = BACKOFF.0;
    let mut was_up = false;
    let mut complained = false;
    loop {
        let up_since = Instant::now();
        let end = serve(&settings, &sink, &metrics, &mut wanted, &mut wants, &mut was_up).await;
        let Err(error) = end else { return };
        metrics.redis_up.set(0);
        sink.reachable(Err(error.to_string()));
        if std::mem::take(&mut was_up) {
            complained = true;
            sink.cut();
            metrics.redis_reconnects.inc();
            tracing::warn!(%error, "lost the link to redis, connecting again");
        } else if !std::mem::replace(&mut complained, true) {
            tracing::warn!(%error, "redis cannot be reached yet, trying on");
        } else {
            tracing::debug!(%error, "redis still cannot be reached");
        }
        if up_since.elapsed() > BACKOFF.1 {
            backoff = BACKOFF.0;
        }
        let pause = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        backoff = (backoff * 2).min(BACKOFF.1);
        // What is wanted meanwhile is only noted; the next connection subscribes to all of it.
        let deadline = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                want = wants.recv() => match want {
                    Some(want) => { note(&mut wanted, want); }
                    None => return,
                },
            }
        }
    }
}

fn note(wanted: &mut HashSet<Channel>, want: Want) {
    match want {
        Want::Subscribe(channel) => wanted.insert(channel),
        Want::Unsubscribe(channel) => wanted.remove(&channel),
    };
}

/// One connection's life; `Ok` when nobody wants anything any more.
async fn serve(
    settings: &Arc<Settings>,
    sink: &Arc<dyn Sink>,
    metrics: &Metrics,
    wanted: &mut HashSet<Channel>,
    wants: &mut mpsc::UnboundedReceiver<Want>,
    was_up: &mut bool,
) -> RedisResult<()> {
    let signals = Arc::new(Signals::default());
    let mut connection = connect(settings, sink, &signals).await?;
    // Taken before anything is subscribed: whatever changes after this is seen as a change.
    let identity = identity(&mut connection).await?;
    connection.subscribe(&[settings.names.control(), settings.names.probe(&settings.replica)]).await?;
    probe(settings, &mut connection, &signals).await?;
    while let Ok(want) = wants.try_recv() {
        note(wanted, want);
    }
    *was_up = true;
    metrics.redis_up.set(1);
    sink.reachable(Ok(()));
    tracing::info!(channels = wanted.len(), "linked to redis");
    subscribe(settings, &mut connection, metrics, wanted.iter().cloned().collect()).await?;
    // On every link, not only the first: a server that lost its data lost its functions too.
    tokio::spawn(install_functions(Arc::clone(settings), connection.clone()));

    let mut check = tokio::time::interval(CHECK_EVERY);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut incoming = Vec::new();
    loop {
        tokio::select! {
            () = signals.disconnected.notified() => return Err(lost("the connection was closed")),
            count = wants.recv_many(&mut incoming, BATCH) => {
                if count == 0 {
                    return Ok(());
                }
                apply(settings, &mut connection, metrics, wanted, &mut incoming).await?;
            }
            _ = check.tick() => {
                if self::identity(&mut connection).await? != identity {
                    return Err(lost("the server's role or history changed"));
                }
            }
        }
    }
}

/// Gives publishers that go straight to Redis their function. The gateway itself needs none.
async fn install_functions(settings: Arc<Settings>, mut connection: MultiplexedConnection) {
    let cluster = function::is_cluster(&mut connection).await;
    let prefix = settings.names.prefix();
    match function::install(&mut connection, prefix, Some(settings.max_event_bytes), cluster).await {
        Ok(installed) => tracing::debug!(?installed, "the function library in redis"),
        // The link is being made anew, and this with it.
        Err(function::NotInstalled::Redis(error)) if error.is_io_error() => {}
        Err(error) if !settings.warned.swap(true, Ordering::Relaxed) => {
            tracing::warn!(%error, "FCALL sluice_publish is not available; publishing through gateways is not affected");
        }
        Err(_) => {}
    }
}

fn lost(why: &'static str) -> redis::RedisError {
    (redis::ErrorKind::Io, why).into()
}

/// Carries out a run of wants in order: neighbours of a kind go in one command.
async fn apply(
    settings: &Settings,
    connection: &mut MultiplexedConnection,
    metrics: &Metrics,
    wanted: &mut HashSet<Channel>,
    incoming: &mut Vec<Want>,
) -> RedisResult<()> {
    let mut joining = Vec::new();
    let mut leaving = Vec::new();
    for want in incoming.drain(..) {
        match want {
            Want::Subscribe(channel) => {
                if !leaving.is_empty() {
                    unsubscribe(settings, connection, std::mem::take(&mut leaving)).await?;
                }
                wanted.insert(channel.clone());
                joining.push(channel);
            }
            Want::Unsubscribe(channel) => {
                if !joining.is_empty() {
                    subscribe(settings, connection, metrics, std::mem::take(&mut joining)).await?;
                }
                wanted.remove(&channel);
                leaving.push(channel);
            }
        }
    }
    unsubscribe(settings, connection, leaving).await?;
    subscribe(settings, connection, metrics, joining).await
}

async fn subscribe(
    settings: &Settings,
    connection: &mut MultiplexedConnection,
    metrics: &Metrics,
    channels: Vec<Channel>,
) -> RedisResult<()> {
    for batch in channels.chunks(BATCH) {
        let names: Vec<_> = batch.iter().map(|channel| settings.names.pubsub(channel)).collect();
        connection.subscribe(&names).await?;
        metrics.redis_subscribes.inc_by(names.len() as u64);
    }
    Ok(())
}

async fn unsubscribe(
    settings: &Settings,
    connection: &mut MultiplexedConnection,
    channels: Vec<Channel>,
) -> RedisResult<()> {
    for batch in channels.chunks(BATCH) {
        let names: Vec<_> = batch.iter().map(|channel| settings.names.pubsub(channel)).collect();
        connection.unsubscribe(&names).await?;
    }
    Ok(())
}

async fn connect(
    settings: &Settings,
    sink: &Arc<dyn Sink>,
    signals: &Arc<Signals>,
) -> RedisResult<MultiplexedConnection> {
    let (sink, signals) = (Arc::clone(sink), Arc::clone(signals));
    let (names, max_bytes) = (settings.names.clone(), settings.max_event_bytes);
    let (control, probe) = (names.control(), names.probe(&settings.replica));
    let route = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
        route(push, &names, &control, &probe, max_bytes, sink.as_ref(), &signals);
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.timeout))
        .set_response_timeout(Some(settings.timeout))
        .set_push_sender(route);
    settings.client.get_multiplexed_async_connection_with_config(&config).await
}

pub(super) fn route(
    push: PushInfo,
    names: &Names,
    control: &str,
    probe: &str,
    max_bytes: usize,
    sink: &dyn Sink,
    signals: &Signals,
) {
    let mut data = push.data.into_iter();
    let name = match (&push.kind, data.next()) {
        (PushKind::Disconnection, _) => return signals.disconnected.notify_one(),
        (PushKind::Message | PushKind::Subscribe, Some(Value::BulkString(name))) => name,
        _ => return,
    };
    let Ok(name) = String::from_utf8(name) else { return };
    match push.kind {
        PushKind::Subscribe => {
            if let Some(Ok(channel)) = names.strip(&name).map(Channel::new) {
                sink.subscribed(&channel);
            }
        }
        _ => {
            let Some(Value::BulkString(payload)) = data.next() else { return };
            if name == control {
                sink.control(payload.into());
            } else if name == probe {
                signals.probed.notify_one();
            } else if let Some(channel) = names.strip(&name) {
                sink.announced(channel, announcement::decode(payload.into(), max_bytes));
                sink.flush_soon();
            }
        }
    }
}

/// Which server this is, and which history it has: after a failover the same connection may stand on a replica, which
/// gets no announcements worth having.
async fn identity(connection: &mut MultiplexedConnection) -> RedisResult<(String, String)> {
    let info: String = cmd("INFO").arg("replication").query_async(connection).await?;
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let role = field("role");
    if role == "slave" {
        return Err(lost("the server is a replica, not a master"));
    }
    Ok((role, field("master_replid")))
}

/// Sends a message to ourselves and waits until it has come back through the subscription.
async fn probe(settings: &Settings, connection: &mut MultiplexedConnection, signals: &Signals) -> RedisResult<()> {
    let probe = settings.names.probe(&settings.replica);
    let _: Value = cmd("PUBLISH").arg(probe).arg("probe").query_async(connection).await?;
    timeout(settings.timeout, signals.probed.notified())
        .await
        .map_err(|_| lost("a probe did not come back through the subscription"))
}
