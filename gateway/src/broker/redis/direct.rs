//! Publishing straight to Redis, for programs that do not know the gateways' rules: by the function where it can be
//! called, else by the script that is the same text. The limits are those that the gateways left in Redis.

use super::{
    function::{self, DEFAULT_MAX_BYTES},
    names::Names,
    scripts,
};
use crate::{broker::Publish, position::Position};
use redis::{Cmd, RedisResult, Value, aio::ConnectionLike, cmd};

/// How events are published on one server, found out by asking it.
#[derive(Clone, Debug)]
pub struct Direct {
    names: Names,
    by_function: bool,
    cluster: bool,
}

impl Direct {
    /// Asks the server what it can do and this user may. To be asked again on every new connection.
    ///
    /// # Errors
    /// When the connection fails; a server that refuses the function is no error.
    pub async fn find(connection: &mut (impl ConnectionLike + Send), prefix: &str) -> RedisResult<Self> {
        let version: RedisResult<Value> = cmd("FCALL").arg("sluice_version").arg(0).query_async(connection).await;
        let by_function = match version {
            Ok(_) => true,
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => false,
        };
        let cluster = function::is_cluster(connection).await;
        Ok(Self { names: Names::new(prefix), by_function, cluster })
    }

    /// Whether the server has the function and the user may call it.
    #[must_use]
    pub fn by_function(&self) -> bool {
        self.by_function
    }

    /// Whether only channels of one slot can be published to in one transaction.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// The call that publishes one event. `whole` for the first one of a pipeline: a tail whose head was not known to the
    /// server could otherwise get in before it.
    #[must_use]
    pub fn command(&self, publish: &Publish, whole: bool) -> Cmd {
        let Publish { channel, event, idempotency_key } = publish;
        let (name, event_type, data) =
            (self.names.pubsub(channel), event.event_type().unwrap_or_default(), &event.data_bytes()[..]);
        if self.by_function {
            let mut call = cmd("FCALL");
            call.arg("sluice_publish").arg(1).arg(name).arg(event_type).arg(data);
            if let Some(key) = idempotency_key {
                // With the prefix, as a name may begin with several.
                call.arg(key).arg(self.names.prefix());
            }
            return call;
        }
        let mut call = scripts::DIRECT.call(whole);
        call.arg(3)
            .arg(self.names.log(channel))
            .arg(self.names.idempotency(channel))
            .arg(self.names.limits(channel))
            .arg(name)
            .arg(self.names.prefix())
            .arg(if self.cluster { "SPUBLISH" } else { "PUBLISH" })
            .arg(event_type)
            .arg(data)
            .arg(idempotency_key.as_deref().unwrap_or_default())
            .arg(DEFAULT_MAX_BYTES);
        call
    }
}

/// Reads what a call answered: the event's position, `None` on a channel without history.
///
/// # Errors
/// What the server said, or an answer that is no position.
pub fn position(answer: Value) -> RedisResult<Option<Position>> {
    let position: Option<String> = redis::from_redis_value(answer.extract_error()?)?;
    position.as_deref().map(scripts::parse_position).transpose()
}
