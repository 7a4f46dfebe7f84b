//! The subscriptions of a replica at one master: one connection, owned and watched by a supervisor.
//!
//! The supervisor knows what is wanted and sees to it that it is in force: it connects with jittered backoff,
//! subscribes in batches, and takes a closed connection, one that does not answer, and a server whose role or history
//! changed under an open connection for the same thing, a cut. What comes is routed by the connection's own reader,
//! which never waits.
//!
//! On a cluster a slot that moves takes its subscriptions with it: the server says so of each (`sunsubscribe`), and they
//! are made anew, here or where the slot went. The client library takes that message for the answer to whatever was
//! asked last, so a connection that had asked something is not used any further.

use super::{
    Shared,
    facts::{Announce, Facts},
    names::Names,
    node::Server,
    watch,
};
use crate::{
    broker::{Sink, announcement},
    channel::Channel,
};
use redis::{
    AsyncConnectionConfig, Client, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cmd,
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

/// Channels in one SUBSCRIBE.
const BATCH: usize = 512;
/// How often the connection is asked whether it still stands, and how long the answer may take at the most, where no other
/// server can take its place ...
const CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// ... and where one can. A frozen master that wakes up carries out what had been sent to it, although a replica was
/// promoted meanwhile, and announces it: nobody may be listening any more by then, and they take a second to promote one.
const CHECK_REPLACEABLE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(750));
/// Before a subscription is asked for again that the server said it has not to give.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The first and the longest pause before connecting again; half of each is chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// Something to be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    Channel(Channel),
    /// What replicas tell each other.
    Control,
}

impl Wanted {
    pub(super) fn name(&self, names: &Names) -> String {
        match self {
            Self::Channel(channel) => names.pubsub(channel),
            Self::Control => names.control(),
        }
    }
}

pub(super) enum Want {
    Subscribe(Wanted),
    Unsubscribe(Wanted),
}

/// What a connection's reader tells the supervisor.
#[derive(Default)]
pub(super) struct Signals {
    disconnected: Notify,
    probed: Notify,
    /// Something was asked of the connection and not answered yet.
    asking: AtomicBool,
    /// The names that are being unsubscribed from, and those that the server took away by itself.
    leaving: Mutex<HashSet<String>>,
    taken: Mutex<Vec<String>>,
    any_taken: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One link's state that outlives its connections.
struct Link {
    shared: Arc<Shared>,
    server: Arc<Server>,
    wanted: HashSet<Wanted>,
    /// Of these, the ones that are known not to be in force.
    pending: HashSet<Wanted>,
    wants: mpsc::UnboundedReceiver<Want>,
    was_up: bool,
    functions: Option<tokio::task::JoinHandle<()>>,
    /// What was said of the server.
    told: Option<Facts>,
}

pub(super) async fn supervise(shared: Arc<Shared>, server: Arc<Server>, wants: mpsc::UnboundedReceiver<Want>) {
    let mut link = Link {
        shared,
        server,
        wanted: HashSet::new(),
        pending: HashSet::new(),
        wants,
        was_up: false,
        functions: None,
        told: None,
    };
    let mut backoff = BACKOFF.0;
    let mut complained = false;
    loop {
        let up_since = Instant::now();
        let end = link.serve().await;
        if let Some(functions) = link.functions.take() {
            functions.abort();
        }
        let Err(error) = end else { return };
        link.shared.reach.link(&link.server.name, Err(error.to_string()));
        // Perhaps another server has its place by now.
        link.shared.refresh.notify_one();
        let master = &link.server.name;
        if std::mem::take(&mut link.was_up) {
            complained = true;
            link.shared.metrics.redis_reconnects.inc();
            tracing::warn!(%error, %master, "the link to redis was lost");
            link.cut_all();
        } else if !std::mem::replace(&mut complained, true) {
            tracing::warn!(%error, %master, "redis cannot be reached yet, trying on");
        } else {
            tracing::debug!(%error, %master, "redis still cannot be reached");
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
                want = link.wants.recv() => match want {
                    Some(want) => link.note(want),
                    None => return,
                },
            }
        }
    }
}

/// A connection, and what its reader tells of it.
struct Wire {
    connection: MultiplexedConnection,
    signals: Arc<Signals>,
    announce: Announce,
}

impl Wire {
    /// Asks, and says for as long as it takes that something is asked.
    async fn ask(&mut self, pipeline: &Pipeline, answers: usize) -> RedisResult<Vec<Value>> {
        self.signals.asking.store(true, Ordering::Release);
        let answered = self.connection.req_packed_commands(pipeline, 0, answers).await;
        self.signals.asking.store(false, Ordering::Release);
        answered
    }
}

impl Link {
    fn note(&mut self, want: Want) {
        match want {
            Want::Subscribe(wanted) => _ = self.wanted.insert(wanted),
            Want::Unsubscribe(wanted) => {
                self.pending.remove(&wanted);
                self.wanted.remove(&wanted);
            }
        }
    }

    fn cut_all(&self) {
        self.cut(self.wanted.iter());
    }

    fn cut<'a>(&self, wanted: impl Iterator<Item = &'a Wanted>) {
        let channels = wanted.filter_map(|wanted| match wanted {
            Wanted::Channel(channel) => Some(channel),
            Wanted::Control => None,
        });
        self.shared.sink.cut(&mut { channels });
    }

    /// One connection's life; `Ok` when nobody wants anything any more.
    async fn serve(&mut self) -> RedisResult<()> {
        let shared = Arc::clone(&self.shared);
        let signals = Arc::new(Signals::default());
        let mut connection = connect(&shared, &self.server, &signals).await?;
        let facts = Facts::ask(&mut connection).await?;
        if facts.is_too_old() {
            return Err((redis::ErrorKind::Client, "it is older than Redis 6.2", facts.to_string()).into());
        }
        if facts.cluster && !self.server.is_of_cluster() {
            return Err((
                redis::ErrorKind::Client,
                "it is one server of a cluster: set redis.cluster, or redis+cluster://",
            )
                .into());
        }
        // Taken before anything is subscribed: whatever changes after this is seen as a change.
        let identity = identity(&mut connection).await?;
        connection.subscribe(&[shared.names.probe(&shared.replica)]).await?;
        probe(&shared, &mut connection, &signals).await?;
        may_subscribe(&shared, &mut connection, facts.announce()).await?;
        while let Ok(want) = self.wants.try_recv() {
            self.note(want);
        }
        let mut wire = Wire { connection, signals: Arc::clone(&signals), announce: facts.announce() };
        self.pending.clear();
        if self.wanted.contains(&Wanted::Control) {
            // First, so that a replica that is ready hears what the others tell it.
            self.subscribe(&mut wire, vec![Wanted::Control]).await?;
        }
        self.tell_facts(&facts);
        if self.wants.is_closed() {
            // It was left while it was being connected to, and what was known of it forgotten before this was said.
            shared.metrics.forget_redis(&self.server.name);
            return Ok(());
        }
        self.server.know(facts);
        self.was_up = true;
        shared.reach.link(&self.server.name, Ok(()));
        tracing::info!(channels = self.wanted.len(), master = self.server.name, "linked to redis");
        self.subscribe(&mut wire, self.wanted.iter().filter(|one| **one != Wanted::Control).cloned().collect()).await?;
        self.functions = Some(tokio::spawn(watch::keep_function(Arc::clone(&shared), Arc::clone(&self.server))));

        let (every, limit) = if self.server.may_be_replaced() { CHECK_REPLACEABLE } else { CHECK };
        let limit = limit.min(shared.timeout);
        let mut check = tokio::time::interval(every);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut incoming = Vec::new();
        loop {
            let has_pending = !self.pending.is_empty();
            tokio::select! {
                () = signals.disconnected.notified() => return Err(lost("the connection was closed")),
                () = signals.any_taken.notified() => self.taken(&signals),
                count = self.wants.recv_many(&mut incoming, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.apply(&mut wire, &mut incoming).await?;
                }
                () = tokio::time::sleep(AGAIN_AFTER), if has_pending => {
                    let pending = self.pending.drain().collect();
                    self.subscribe(&mut wire, pending).await?;
                }
                _ = check.tick() => {
                    signals.asking.store(true, Ordering::Release);
                    let now = timeout(limit, self::identity(&mut wire.connection)).await;
                    signals.asking.store(false, Ordering::Release);
                    let now = now.map_err(|_| lost("the server does not answer"))?;
                    if now? != identity {
                        return Err(lost("the server's role or history changed"));
                    }
                }
            }
        }
    }

    /// In the log and a metric, as it may change whenever a link is made.
    fn tell_facts(&mut self, facts: &Facts) {
        if self.told.as_ref() == Some(facts) {
            return;
        }
        self.told = Some(facts.clone());
        self.shared.metrics.tell_redis(&self.server.name, &facts.software, &facts.version);
        let master = &self.server.name;
        tracing::info!(server = %facts, %master, "redis is");
        for lack in facts.lacks() {
            tracing::warn!(server = %facts, %master, "this server lacks {lack}");
        }
    }

    /// The server took subscriptions away, as their slots went elsewhere.
    fn taken(&mut self, signals: &Signals) {
        let names: HashSet<String> = lock(&signals.taken).drain(..).collect();
        let names_of = &self.shared.names;
        let taken: Vec<_> = self.wanted.iter().filter(|one| names.contains(&one.name(names_of))).cloned().collect();
        tracing::debug!(channels = taken.len(), master = self.server.name, "slots have moved away");
        self.cut(taken.iter());
        self.pending.extend(taken);
        self.shared.refresh.notify_one();
    }

    /// Carries out a run of wants in order: neighbours of a kind go in one command.
    async fn apply(&mut self, wire: &mut Wire, incoming: &mut Vec<Want>) -> RedisResult<()> {
        let mut joining = Vec::new();
        let mut leaving = Vec::new();
        for want in incoming.drain(..) {
            match want {
                Want::Subscribe(wanted) => {
                    if !leaving.is_empty() {
                        self.unsubscribe(wire, std::mem::take(&mut leaving)).await?;
                    }
                    self.wanted.insert(wanted.clone());
                    joining.push(wanted);
                }
                Want::Unsubscribe(wanted) => {
                    if !joining.is_empty() {
                        self.subscribe(wire, std::mem::take(&mut joining)).await?;
                    }
                    self.wanted.remove(&wanted);
                    // What is not in force need not be left.
                    if !self.pending.remove(&wanted) {
                        leaving.push(wanted);
                    }
                }
            }
        }
        self.unsubscribe(wire, leaving).await?;
        self.subscribe(wire, joining).await
    }

    async fn subscribe(&mut self, wire: &mut Wire, wanted: Vec<Wanted>) -> RedisResult<()> {
        for batch in wanted.chunks(BATCH) {
            let names: Vec<_> = batch.iter().map(|one| one.name(&self.shared.names)).collect();
            self.shared.metrics.redis_subscribes.inc_by(names.len() as u64);
            if wire.announce == Announce::Classic {
                wire.connection.subscribe(&names).await?;
                continue;
            }
            // One a command, as those of one command must be of one slot.
            let mut pipeline = Pipeline::with_capacity(names.len());
            for name in &names {
                pipeline.cmd("SSUBSCRIBE").arg(name);
            }
            let answers = wire.ask(&pipeline, names.len()).await?;
            for (one, answer) in batch.iter().zip(answers) {
                let Err(error) = answer.extract_error() else { continue };
                match error.code() {
                    // Its slot is elsewhere, or nowhere for now.
                    Some("MOVED" | "CLUSTERDOWN" | "ASK" | "TRYAGAIN") => _ = self.pending.insert(one.clone()),
                    _ => return Err(error),
                }
            }
        }
        if !self.pending.is_empty() {
            self.shared.refresh.notify_one();
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, wire: &mut Wire, wanted: Vec<Wanted>) -> RedisResult<()> {
        for batch in wanted.chunks(BATCH) {
            let names: Vec<_> = batch.iter().map(|one| one.name(&self.shared.names)).collect();
            if wire.announce == Announce::Classic {
                wire.connection.unsubscribe(&names).await?;
                continue;
            }
            let mut pipeline = Pipeline::with_capacity(names.len());
            for name in &names {
                pipeline.cmd("SUNSUBSCRIBE").arg(name);
            }
            lock(&wire.signals.leaving).extend(names.iter().cloned());
            let answers = wire.ask(&pipeline, names.len()).await?;
            lock(&wire.signals.leaving).clear();
            // An error means that a slot went while it was being left: the message that it was taken away may have been
            // taken for the answer.
            answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))?;
        }
        Ok(())
    }
}

fn lost(why: &'static str) -> redis::RedisError {
    (redis::ErrorKind::Io, why).into()
}

async fn connect(shared: &Arc<Shared>, server: &Server, signals: &Arc<Signals>) -> RedisResult<MultiplexedConnection> {
    let (of_all, signals) = (Arc::clone(shared), Arc::clone(signals));
    let (names, max_bytes) = (shared.names.clone(), shared.max_event_bytes);
    let (control, probe) = (names.control(), names.probe(&shared.replica));
    let route = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
        let (sink, announced) = (of_all.sink.as_ref(), &of_all.announced_bytes);
        route(push, &names, &control, &probe, max_bytes, sink, &signals, announced);
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(shared.timeout))
        .set_response_timeout(Some(shared.timeout))
        .set_push_sender(route);
    // RESP3, which has messages beside answers.
    let settings = server.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(server.info.clone().set_redis_settings(settings))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

#[expect(clippy::too_many_arguments, reason = "what a connection's reader has at hand")]
pub(super) fn route(
    push: PushInfo,
    names: &Names,
    control: &str,
    probe: &str,
    max_bytes: usize,
    sink: &dyn Sink,
    signals: &Signals,
    announced: &AtomicU64,
) {
    let mut data = push.data.into_iter();
    let name = match (&push.kind, data.next()) {
        (PushKind::Disconnection, _) => return signals.disconnected.notify_one(),
        (
            PushKind::Message
            | PushKind::SMessage
            | PushKind::Subscribe
            | PushKind::SSubscribe
            | PushKind::SUnsubscribe,
            Some(Value::BulkString(name)),
        ) => name,
        _ => return,
    };
    let Ok(name) = String::from_utf8(name) else { return };
    match push.kind {
        PushKind::Subscribe | PushKind::SSubscribe => {
            if let Some(Ok(channel)) = names.strip(&name).map(Channel::new) {
                sink.subscribed(&channel);
            }
        }
        PushKind::SUnsubscribe => {
            // Each is answered once: a second time it was taken away.
            if !lock(&signals.leaving).remove(&name) {
                lock(&signals.taken).push(name);
                if signals.asking.load(Ordering::Acquire) {
                    // Taken for an answer: from here on all answers are one off.
                    signals.disconnected.notify_one();
                }
                signals.any_taken.notify_one();
            }
        }
        _ => {
            let Some(Value::BulkString(payload)) = data.next() else { return };
            announced.fetch_add(payload.len() as u64, Ordering::Relaxed);
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
/// The probe comes by plain pub/sub, for which a sharded one proves nothing; that a user may have it can be asked.
async fn may_subscribe(shared: &Shared, connection: &mut MultiplexedConnection, announce: Announce) -> RedisResult<()> {
    if announce == Announce::Classic {
        return Ok(());
    }
    let ask = "return redis.acl_check_cmd('SSUBSCRIBE', ARGV[1])";
    let may: Option<bool> =
        cmd("EVAL").arg(ask).arg(0).arg(shared.names.probe(&shared.replica)).query_async(connection).await?;
    if may == Some(true) {
        return Ok(());
    }
    Err((redis::ErrorKind::Client, "NOPERM this user may not SSUBSCRIBE", "see docs/redis.md, Rights".to_owned())
        .into())
}

async fn probe(shared: &Shared, connection: &mut MultiplexedConnection, signals: &Signals) -> RedisResult<()> {
    let probe = shared.names.probe(&shared.replica);
    let _: Value = cmd("PUBLISH").arg(probe).arg("probe").query_async(connection).await?;
    timeout(shared.timeout, signals.probed.notified())
        .await
        .map_err(|_| lost("a probe did not come back through the subscription"))
}
