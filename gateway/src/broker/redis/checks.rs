//! What of a Redis would break a promise, looked for before it does: each finding with what to do about it.

use super::{facts::Facts, names::Names};
use crate::auth::denied::now_ms;
use redis::{RedisResult, aio::ConnectionLike, cmd};
use std::collections::{BTreeSet, HashMap};

/// What can be found, as `sse_redis_findings{finding}` says it.
pub const KINDS: [&str; 7] = ["eviction", "persistence", "pubsub-buffer", "rights", "clock", "memory", "deployments"];
/// Beyond this a server's clock is far off.
const CLOCK_OFF_MS: u64 = 2_000;
/// A share of `maxmemory` near which it is time to do something.
const MEMORY_NEAR: f64 = 0.9;
/// Replicas that said within this time that they are there are there.
const REPLICA_SEEN_MS: u64 = 30_000;
/// How many seconds of a replica's traffic Redis must be ready to hold for it.
const BUFFERED_SECONDS: f64 = 5.0;

/// Something to do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of [`KINDS`].
    pub kind: &'static str,
    pub what: String,
    pub advice: &'static str,
}

/// What a replica needs of Redis.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Announcements to one replica.
    pub bytes_per_second: f64,
    pub max_event_bytes: usize,
    /// It waits for replicas of Redis.
    pub waits: bool,
}

/// Looks at one master.
///
/// # Errors
/// When the connection fails, or the user may not even ask.
pub async fn look(
    connection: &mut (impl ConnectionLike + Send),
    prefix: &str,
    needs: Needs,
) -> RedisResult<Vec<Finding>> {
    let facts = Facts::ask(connection).await?;
    let memory: String = cmd("INFO").arg("memory").query_async(connection).await?;
    let persistence: String = cmd("INFO").arg("persistence").query_async(connection).await?;
    // Not asked where it is not allowed, as Redis writes that down.
    let may = facts.has_functions() && {
        let ask: RedisResult<i64> = cmd("EVAL").arg(MAY_CONFIG).arg(0).query_async(connection).await;
        ask.is_ok_and(|may| may == 1)
    };
    let may = may || !facts.has_functions();
    let clients = if may { settings(connection, "client-output-buffer-limit").await } else { None };
    let save = if may { settings(connection, "save").await } else { None };
    let mut findings = of_memory(&memory);
    findings.extend(of_persistence(&persistence, save.as_ref()));
    findings.extend(clients.as_ref().and_then(|found| of_buffers(found, needs)));
    findings.extend(of_rights(connection, prefix, &facts, needs).await?);
    let before = now_ms();
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
    findings.extend(of_clock(seconds * 1000 + micros / 1000, before, now_ms()));
    let replicas = Names::new(prefix).replicas();
    let seen: RedisResult<Vec<String>> = cmd("ZRANGEBYSCORE")
        .arg(replicas)
        .arg(before.saturating_sub(REPLICA_SEEN_MS))
        .arg("+inf")
        .query_async(connection)
        .await;
    // Of a cluster one master has it, and whoever may not read it is told so under its rights.
    findings.extend(seen.ok().and_then(|seen| of_deployments(&seen)));
    Ok(findings)
}

const MAY_CONFIG: &str = "return redis.acl_check_cmd('config', 'get', 'save') and 1 or 0";

/// One setting, if it may be asked for: managed servers do not allow it.
async fn settings(connection: &mut (impl ConnectionLike + Send), name: &str) -> Option<String> {
    let answer: RedisResult<HashMap<String, String>> = cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
    answer.ok()?.remove(name)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn number(info: &str, name: &str) -> u64 {
    field(info, name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn of_memory(info: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let policy = field(info, "maxmemory_policy").unwrap_or("noeviction");
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    if policy != "noeviction" {
        let when = if most == 0 { ", as soon as maxmemory is set" } else { "" };
        findings.push(Finding {
            kind: "eviction",
            what: format!(
                "maxmemory-policy is {policy}: history can be evicted{when}, which is a reset for its clients"
            ),
            advice: "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        });
    }
    if most > 0 && used as f64 > MEMORY_NEAR * most as f64 {
        findings.push(Finding {
            kind: "memory",
            what: format!(
                "{used} of {most} bytes of maxmemory are in use: publishing with history stops when it is full"
            ),
            advice: "raise maxmemory, or keep less: history.size, history.age, history.memory",
        });
    }
    findings
}

fn of_persistence(info: &str, save: Option<&String>) -> Option<Finding> {
    let (appends, snapshots) = (number(info, "aof_enabled") == 1, save.is_none_or(|save| !save.is_empty()));
    (!appends && !snapshots).then(|| Finding {
        kind: "persistence",
        what: "nothing is written to disk: a restart is a reset on every channel".to_owned(),
        advice: "appendonly yes; what each setting may lose is in docs/delivery.md",
    })
}

/// The setting is four words for each class: its name, the hard and the soft limit, and seconds.
fn of_buffers(setting: &str, needs: Needs) -> Option<Finding> {
    let words: Vec<_> = setting.split(' ').collect();
    let pubsub = words.chunks(4).find(|class| class.first() == Some(&"pubsub"))?;
    let bytes = |at: usize| pubsub.get(at).and_then(|text| text.parse::<f64>().ok()).filter(|&limit| limit > 0.0);
    let (hard, soft) = (bytes(1), bytes(2));
    let burst = (needs.bytes_per_second * BUFFERED_SECONDS).max(16.0 * needs.max_event_bytes as f64);
    let too_small = hard.is_some_and(|hard| hard < burst) || soft.is_some_and(|soft| soft < needs.bytes_per_second);
    too_small.then(|| Finding {
        kind: "pubsub-buffer",
        what: format!(
            "client-output-buffer-limit is {}: a replica that is held up is cut off, where it takes up to {:.0} bytes a second",
            pubsub.join(" "),
            needs.bytes_per_second,
        ),
        advice: "CONFIG SET client-output-buffer-limit 'pubsub 256mb 64mb 60', and in redis.conf",
    })
}

fn of_clock(theirs: u64, before: u64, after: u64) -> Option<Finding> {
    let off = if theirs > after { theirs - after } else { before.saturating_sub(theirs) };
    (off > CLOCK_OFF_MS).then(|| Finding {
        kind: "clock",
        what: format!("its clock is {off} ms off ours: ages, since= and sse_delivery_seconds are wrong by as much"),
        advice: "synchronise the clocks of both machines (NTP)",
    })
}

/// Entries are `<digest of the rules>:<replica>`.
fn of_deployments(seen: &[String]) -> Option<Finding> {
    let digests: BTreeSet<_> =
        seen.iter().filter_map(|entry| entry.split_once(':')).map(|(digest, _)| digest).collect();
    (digests.len() > 1).then(|| Finding {
        kind: "deployments",
        what: format!(
            "{} gateways of this prefix have {} different sets of channel rules: two deployments share it, or a rollout is \
             under way",
            seen.len(),
            digests.len()
        ),
        advice: "give each deployment a redis.prefix of its own, and all its replicas the same rules",
    })
}

/// The commands that the gateways run, each with arguments of the kind that it is run with: K a key, C a channel.
const RIGHTS: &str = "\
    time|info|evalsha x 0|xinfo stream K|xadd K * a b|xtrim K maxlen 0|xrange K - +|xrevrange K + -|xdel K 1-0|expire K 9|\
    hget K a|hset K a b|hdel K a|hincrby K a 1|get K|set K a|del K|unlink K|zadd K 1 a|zrangebyscore K 0 1|\
    zremrangebyscore K 0 1|publish C x|subscribe C|unsubscribe C";
/// Refused to wait, a gateway would take it that no replica has anything.
const RIGHTS_TO_WAIT: &str = "|wait 0 0";
const RIGHTS_ON_CLUSTERS: &str = "|cluster nodes|asking|spublish C x|ssubscribe C|sunsubscribe C";

/// Kinds of keys beside the log: what names begin with after the prefix.
const KEY_KINDS: [&str; 7] = ["idempotency:", "limits:", "taken:", "lease:", "intake", "$replicas", "$denied"];

/// ARGV: rights, a key, a pub/sub channel, other kinds of keys. Answers the first words of the rights that the user lacks, and the
/// keys that it may not write.
const LACKING: &str = "\
local lacking = {}
for right in string.gmatch(ARGV[1], '[^|]+') do
  local words = {}
  for word in string.gmatch(right, '%S+') do
    words[#words + 1] = word == 'K' and ARGV[2] or word == 'C' and ARGV[3] or word
  end
  if not redis.acl_check_cmd(unpack(words)) then lacking[#lacking + 1] = words[1] end
end
if redis.acl_check_cmd('del', ARGV[2]) then
  for i = 4, #ARGV do
    if not redis.acl_check_cmd('del', ARGV[i]) then lacking[#lacking + 1] = 'keys ~' .. ARGV[i] .. '*' end
  end
end
return lacking";

/// Asks within a script, which carries nothing out. Servers before 7.0 cannot be asked.
async fn of_rights(
    connection: &mut (impl ConnectionLike + Send),
    prefix: &str,
    facts: &Facts,
    needs: Needs,
) -> RedisResult<Option<Finding>> {
    if !facts.has_functions() {
        return Ok(None);
    }
    let beside = [(facts.cluster, RIGHTS_ON_CLUSTERS), (needs.waits, RIGHTS_TO_WAIT)];
    let beside = beside.into_iter().filter_map(|(needed, rights)| needed.then_some(rights));
    let rights: String = [RIGHTS].into_iter().chain(beside).collect();
    let mut ask = cmd("EVAL");
    // No key, so that every master of a cluster can be asked.
    ask.arg(LACKING).arg(0).arg(rights).arg(format!("{prefix}log:{{{prefix}check}}")).arg(format!("{prefix}check"));
    ask.arg(KEY_KINDS.map(|kind| format!("{prefix}{kind}")).as_slice());
    let lacking: RedisResult<Vec<String>> = ask.query_async(connection).await;
    let lacking = match lacking {
        Ok(lacking) => lacking,
        Err(error) if error.code() == Some("NOPERM") => vec!["eval".to_owned()],
        Err(error) => return Err(error),
    };
    Ok((!lacking.is_empty()).then(|| Finding {
        kind: "rights",
        what: format!("the user lacks rights within the prefix {prefix}: {}", lacking.join(", ")),
        advice: "ACL SETUSER as docs/redis.md has it",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(findings: impl IntoIterator<Item = Finding>) -> Vec<&'static str> {
        let kinds: Vec<_> = findings.into_iter().map(|finding| finding.kind).collect();
        assert!(kinds.iter().all(|kind| KINDS.contains(kind)));
        kinds
    }

    #[test]
    fn what_is_as_it_should_be_is_no_finding() {
        let needs = Needs { bytes_per_second: 1e6, max_event_bytes: 65536, waits: false };
        assert!(of_memory("used_memory:5\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n").is_empty());
        assert!(of_persistence("aof_enabled:1\r\n", Some(&String::new())).is_none());
        assert!(of_persistence("aof_enabled:0\r\n", Some(&"3600 1".to_owned())).is_none());
        assert!(of_persistence("aof_enabled:0\r\n", None).is_none(), "a server that does not say");
        assert!(of_buffers("normal 0 0 0 slave 256 64 60 pubsub 33554432 8388608 60", needs).is_none());
        assert!(of_buffers("pubsub 0 0 0", Needs { bytes_per_second: 1e12, ..needs }).is_none());
        assert!(of_clock(1_000_000, 999_000, 1_000_100).is_none());
        assert!(of_deployments(&["a:1".to_owned(), "a:2".to_owned()]).is_none());
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        let needs = Needs { bytes_per_second: 1e7, max_event_bytes: 65536, waits: false };
        assert_eq!(
            kinds(of_memory("used_memory:95\nmaxmemory:100\nmaxmemory_policy:allkeys-lru\n")),
            ["eviction", "memory"]
        );
        assert_eq!(kinds(of_persistence("aof_enabled:0\n", Some(&String::new()))), ["persistence"]);
        assert_eq!(kinds(of_buffers("normal 0 0 0 pubsub 33554432 8388608 60", needs)), ["pubsub-buffer"]);
        assert_eq!(kinds(of_buffers("pubsub 65536 0 0", Needs { bytes_per_second: 0.0, ..needs })), ["pubsub-buffer"]);
        assert_eq!(kinds(of_clock(2_000_000, 1_000_000, 1_000_010)), ["clock"]);
        assert_eq!(kinds(of_clock(1_000_000, 2_000_000, 2_000_010)), ["clock"]);
        assert_eq!(kinds(of_deployments(&["a:1".to_owned(), "b:2".to_owned()])), ["deployments"]);
    }
}
