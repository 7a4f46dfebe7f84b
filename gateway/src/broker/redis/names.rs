//! The names of things in Redis. All of one channel's names hash to one slot: that of its pub/sub channel, whose whole
//! name is the hash tag of its keys.

use crate::channel::Channel;

/// The prefix of every name, `sluice:` unless configured.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the channel's events are announced, and where anybody may `PUBLISH`.
    #[must_use]
    pub fn pubsub(&self, channel: &Channel) -> String {
        [self.prefix.as_str(), channel.as_str()].concat()
    }

    /// The channel's history, a stream.
    #[must_use]
    pub fn log(&self, channel: &Channel) -> String {
        self.key("log", channel)
    }

    /// The channel's idempotency keys, a hash.
    #[must_use]
    pub fn idempotency(&self, channel: &Channel) -> String {
        self.key("idempotency", channel)
    }

    /// The channel's limits, for publishers that do not know the rules.
    #[must_use]
    pub fn limits(&self, channel: &Channel) -> String {
        self.key("limits", channel)
    }

    /// The ids of the last entries of intake streams that were published to the channel, a hash by the stream.
    #[must_use]
    pub fn taken(&self, channel: &Channel) -> String {
        self.key("taken", channel)
    }

    /// An intake stream, whose name in the settings is this.
    #[must_use]
    pub fn intake(&self, name: &str) -> String {
        [self.prefix.as_str(), name].concat()
    }

    /// Who takes the entries of a stream in. In the stream's slot.
    #[must_use]
    pub fn lease(&self, stream: &str) -> String {
        [self.prefix.as_str(), "lease:{", stream, "}"].concat()
    }

    fn key(&self, kind: &str, channel: &Channel) -> String {
        [self.prefix.as_str(), kind, ":{", self.prefix.as_str(), channel.as_str(), "}"].concat()
    }

    /// What replicas tell each other. No channel can have this name.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}$control", self.prefix)
    }

    /// The ids of tokens that are denied, a sorted set by the time until when, in milliseconds since 1970.
    #[must_use]
    pub fn denied(&self) -> String {
        format!("{}$denied", self.prefix)
    }

    /// The replicas that are there, a sorted set by when they said so, in milliseconds since 1970.
    #[must_use]
    pub fn replicas(&self) -> String {
        format!("{}$replicas", self.prefix)
    }

    /// Where one replica sends a probe to itself. No channel can have this name.
    #[must_use]
    pub fn probe(&self, replica: &str) -> String {
        format!("{}$probe.{replica}", self.prefix)
    }

    /// The name without its prefix: a channel's, if it is one of ours.
    #[must_use]
    pub fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.prefix.as_str())
    }
}
