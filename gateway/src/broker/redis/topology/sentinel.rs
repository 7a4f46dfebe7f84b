//! Where sentinels say that their master is.

use super::{Known, LOOK_EVERY, Layout, Master, Refresh, pause, tell};
use crate::broker::redis::target::Address;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisResult,
    aio::MultiplexedConnection,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// What sentinels tell by themselves that is a reason to look: the last says that the master is another one, the others
/// that it may be soon.
const TOLD: [&str; 4] = ["+sdown", "+odown", "+promoted-slave", "+switch-master"];

/// What one sentinel says.
type Said = Result<(u64, Address), String>;

struct Sentinels {
    master: String,
    timeout: Duration,
    said: Mutex<Vec<Said>>,
    known: watch::Sender<Known>,
}

pub(super) async fn watch(
    at: Vec<ConnectionInfo>,
    master: String,
    timeout: Duration,
    refresh: Refresh,
    known: watch::Sender<Known>,
) {
    let said = at.iter().map(|info| Err(format!("{} was not asked yet", info.addr()))).collect();
    let sentinels = Arc::new(Sentinels { master, timeout, said: Mutex::new(said), known });
    // One notification wakes one task: each sentinel has its own.
    let wakers: Vec<_> = at.iter().map(|_| Arc::new(Notify::new())).collect();
    let tasks: Vec<_> = at
        .into_iter()
        .zip(&wakers)
        .enumerate()
        .map(|(nth, (info, wake))| tokio::spawn(Arc::clone(&sentinels).ask(nth, info, Arc::clone(wake))))
        .collect();
    loop {
        tokio::select! {
            () = sentinels.known.closed() => break,
            () = refresh.notified() => wakers.iter().for_each(|wake| wake.notify_one()),
        }
    }
    for task in tasks {
        task.abort();
    }
}

impl Sentinels {
    /// Asks one of them for ever.
    async fn ask(self: Arc<Self>, nth: usize, info: ConnectionInfo, wake: Arc<Notify>) {
        let name = info.addr().to_string();
        loop {
            let error = match self.connect(&info, &wake).await {
                Ok(mut connection) => loop {
                    match self.look(&mut connection).await {
                        Ok(said) => self.heard(nth, said),
                        Err(error) => break error,
                    }
                    pause(&wake, true).await;
                },
                Err(error) => error,
            };
            self.heard(nth, Err(format!("{name}: {error}")));
            tokio::time::sleep(LOOK_EVERY.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// A connection that wakes us when the sentinel says that the master is another one.
    async fn connect(&self, info: &ConnectionInfo, wake: &Arc<Notify>) -> RedisResult<MultiplexedConnection> {
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.clone().set_redis_settings(settings))?;
        let woken = Arc::clone(wake);
        let told = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                woken.notify_one();
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_push_sender(told);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(&TOLD[..]).await?;
        Ok(connection)
    }

    async fn look(&self, connection: &mut MultiplexedConnection) -> RedisResult<Said> {
        let mut ask = redis::pipe();
        ask.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        // Names the promoted one as soon as it is sure, while a failover is still being finished.
        ask.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer: RedisResult<(HashMap<String, String>, (String, u16))> = ask.query_async(connection).await;
        match answer {
            Ok((fields, (host, port))) => match fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()) {
                Some(epoch) => Ok(Ok((epoch, Address { host, port }))),
                None => Err((ErrorKind::UnexpectedReturnType, "a sentinel did not say where its master is").into()),
            },
            Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
            Err(error) => Ok(Err(format!("a sentinel says of {:?}: {error}", self.master))),
        }
    }

    fn heard(&self, nth: usize, what: Said) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said[nth] = what;
        let newest = said.iter().flatten().max_by_key(|(epoch, _)| *epoch);
        let now = match newest {
            Some((_, address)) => Ok(Layout { masters: vec![Master::of_all(Some(address.clone()))], cluster: false }),
            None => Err(said.iter().filter_map(|said| said.as_ref().err().cloned()).collect::<Vec<_>>().join("; ")),
        };
        // Under the lock, so that an older view never follows a newer one.
        tell(&self.known, now);
    }
}
