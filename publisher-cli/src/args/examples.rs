//! The examples at the end of each command's `--help`.

pub(super) const ALL: &str = "\
Examples:
  sluice tail news                     print what is published to news
  sluice publish news 'Hello, world'   publish to it
  sluice stats                         count who listens

`sluice help COMMAND` has more of them.";

pub(super) const PUBLISH: &str = "\
Examples:
  sluice publish news 'Hello, world'
  sluice publish orders.eu --event created '{\"id\": 7}'
  sluice publish news < story.txt
  tail -f app.log | sluice publish logs --lines --quiet
  sluice publish --ndjson --file events.ndjson
  sluice publish news 'Only once' --idempotency-key story-42
  sluice publish news 'Hello' --redis redis://127.0.0.1:6379

Prints each event's position in its channel's history, - if it has none.
Exit codes: 0 all published, 1 not all (stderr says which and why), 2 usage.";

pub(super) const TAIL: &str = "\
Examples:
  sluice tail news orders.eu
  sluice tail news --since 10m
  sluice tail orders.eu --json | jq -r .data
  sluice tail orders.eu --json --cursor-file orders.cursor >> orders.ndjson
  sluice tail news --count 1 --timeout 30s

Reconnects for as long as it takes and goes on where it stopped; a gap that the
gateway reports is a warning on stderr, and with --json a line whose event is gap.
Exit codes: 0 done, 1 refused for good or --timeout before --count, 2 usage.";

pub(super) const HEALTH: &str = "\
Examples:
  sluice health
  sluice health http://127.0.0.1:8081/livez

Exit codes: 0 it is, 1 it is not or does not answer (stderr says why), 2 usage.";

pub(super) const STATS: &str = "\
Examples:
  sluice stats
  sluice stats news orders.eu
  sluice stats --json | jq .connections.cluster";

pub(super) const TOKEN: &str = "\
Examples:
  sluice token mint --secret-file hs.key --subscribe 'orders.*' --sub ann --ttl 1h
  sluice token mint --private-key es.pem --alg ES256 --publish orders.eu --iss https://id.example.com
  sluice token mint --secret-file hs.key --admin | sluice token explain -
  sluice token explain eyJ... --secret-file hs.key

Exit codes: 0 done, and what was explained holds; 1 not so (stderr says why), 2 usage.";

pub(super) const BENCH: &str = "\
Examples:
  sluice bench run -n 1000                      1,000 streams of one channel
  sluice bench run -n 1000 --http2 --stall 10   over HTTP/2, beside 10 that never read
  sluice bench resume -n 1000 --events 500      1,000 clients that missed 500 events
  sluice bench floor --listen 127.0.0.1:8090    the least that a server can cost

`sluice help bench COMMAND` has more of them.";

pub(super) const BENCH_RUN: &str = "\
Examples:
  sluice bench run -n 10000 --pid gateway=$(pidof sluice-gateway)
  sluice bench run -n 5000 --channels 5000 --rate 3000 --duration 30s
  sluice bench run -n 10000 --idle --pid 4711
  sluice bench run -n 1000 --url 'http://127.0.0.1:8090/sub?id={channel}' \\
      --publish-url 'http://127.0.0.1:8090/pub?id={channel}' --outstanding 50
  sluice bench run --url 'http://127.0.0.1:8000/sse?ch={channel}' \\
      --publish-url http://127.0.0.1:8000/api/publish \\
      --publish-body '{\"channel\":\"{channel}\",\"data\":{json}}'

Every delivery is checked. Exit codes: 0 all came once and in order, 1 not so, or
not all was opened and published (stderr says what), 2 usage.";

pub(super) const BENCH_RESUME: &str = "\
Examples:
  sluice bench resume -n 1000 --events 500 --pid gateway=$(pidof sluice-gateway)

Publishes the events while nobody listens, opens the streams with the id from
before them, and waits until each has all. Exit codes are those of bench run.";

pub(super) const BENCH_FLOOR: &str = "\
Examples:
  taskset -c 0 sluice bench floor --listen 127.0.0.1:8090
  taskset -c 1 sluice bench run --url http://127.0.0.1:8090/ -n 10000

Every GET is a stream, and what anything else brings goes to all of them. Prints
its address when it is ready, and ends with SIGTERM.";

pub(super) const REDIS: &str = "\
Examples:
  sluice redis install
  sluice redis install --redis redis://10.0.0.5:6379 --prefix shop:

After it, from any client of that Redis:
  redis-cli FCALL sluice_publish 1 sluice:news update '{\"a\":1}'
  redis-cli FCALL sluice_publish 1 sluice:news '' 'Only once' story-42
publishes to news, an event of the type update or of none, and answers its
position. Gateways install it too, where their user may. Needs Redis 7.0.";

pub(super) const REDIS_CHECK: &str = "\
Examples:
  sluice redis check
  sluice redis check --redis redis+sentinel://s1,s2,s3/mymaster
  sluice redis check --redis rediss+cluster://:password@r1,r2 --redis-ca ca.crt

Each master is named with what it is and what was found, and what to do about
it. The exit code is 1 if anything was found.";

pub(super) const REDIS_STATS: &str = "\
Examples:
  sluice redis stats
  sluice redis stats --redis redis+cluster://r1,r2 --top 3 --json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  sluice completions bash > ~/.local/share/bash-completion/completions/sluice
  sluice completions zsh > ~/.zfunc/_sluice
  sluice completions fish > ~/.config/fish/completions/sluice.fish";
