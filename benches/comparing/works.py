"""The work that is done on each server, and what is read from it.

A work's figures are numbers by name; lower is better unless the name is a rate. What is compared with what, and which
ratio is aimed at, stands with each work.
"""

from dataclasses import dataclass, field

from . import servers

BOTH = ["floor", "nchan", "Sluice", "Sluice + Redis"]


@dataclass(frozen=True)
class Goal:
    """`of`'s figure divided by `than`'s should be at most (or, for rates, at least) `bound`."""

    figure: str
    of: str
    than: str
    bound: float
    at_least: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a work on a server: figures by name, and what the load complained of."""

    figures: dict
    faults: list

    def brief(self):
        return "; ".join([", ".join(f"{name} {value:.3g}" for name, value in self.figures.items()), *self.faults])


@dataclass(frozen=True, eq=False)
class Work:
    """`title` is that of one work only; it has the number of streams as `{streams:,}`."""

    name: str
    title: str
    servers: list
    streams: int
    options: list
    figures: dict
    goals: list
    command: str = "run"
    publishes: bool = True
    # Times as long as the others, where there are few events a second.
    longer: int = 1
    # Done in the first round only: what it shows is how figures change from one work to the next.
    once: bool = False
    settings: dict = field(default_factory=dict)

    def scaled(self, scale):
        """How many streams there are with one in `scale` of them."""
        return max(self.streams // scale, 1)

    def titled(self, scale):
        return self.title.format(streams=self.scaled(scale))

    def measure(self, kind, seconds, scale):
        """Does the work on a server of this kind, started for it."""
        options = list(self.options)
        options += ["--streams", self.scaled(scale)]
        if "channels" in self.settings:
            options += ["--channels", max(self.settings["channels"] // scale, 1)]
        if self.command == "run":
            options += ["--duration", f"{seconds * self.longer:g}s"]
        if self.publishes and self.command == "run":
            options += ["--warmup", "2s" if scale == 1 else "500ms"]
        options += self.settings.get(kind, [])
        with servers.running(kind.partition(", ")[0], both_cores=kind.endswith("both cores")) as server:
            measured = servers.load(self.command, server, options)
        figures = {name: read(measured) for name, read in self.figures.items()}
        if missing := [name for name, value in figures.items() if value is None]:
            raise RuntimeError(f"there is no figure for {', '.join(missing)}; {'; '.join(measured['faults'])}")
        return Outcome(figures, measured["faults"])


def server(measured, name="server"):
    found = [one for one in measured["processes"] if one["name"] in (name, "floor" if name == "server" else name)]
    return found[0] if found else {}


def cpu_per_delivery(measured):
    return server(measured)["cpu_us_per_delivery"]


def cpu_per_event(measured):
    return server(measured)["cpu_us_per_event"]


def redis_cpu_per_event(measured):
    """Of all of them, where there are several."""
    redis = [one for one in measured["processes"] if one["name"].partition("-")[0] == "redis"]
    return sum(one["cpu_us_per_event"] for one in redis)


DELIVERY = {"CPU µs per delivery": cpu_per_delivery}
EVENT = {"CPU µs per event": cpu_per_event, "of Redis": redis_cpu_per_event}


def floor_goals(figure, bound):
    return [Goal(figure, "Sluice", "floor", bound), Goal(figure, "Sluice + Redis", "floor", bound)]


ALL = [
    Work("fan-out", "{streams:,} subscribers of one channel, one event outstanding", BOTH, 1000, ["--outstanding", 1],
         DELIVERY, floor_goals("CPU µs per delivery", 1.15)),
    Work("wide", "{streams:,} subscribers, one event outstanding", BOTH, 10_000, ["--outstanding", 1],
         DELIVERY, floor_goals("CPU µs per delivery", 1.15)),
    Work("burst", "{streams:,} subscribers, 50 events outstanding", BOTH, 1000,
         ["--outstanding", 50], DELIVERY, [Goal("CPU µs per delivery", "Sluice", "nchan", 1 / 8)]),
    Work("wide-burst", "{streams:,} subscribers, 50 events outstanding", BOTH,
         10_000, ["--outstanding", 50], DELIVERY, [Goal("CPU µs per delivery", "Sluice", "nchan", 1 / 8)]),
    Work("idle", "{streams:,} connections, idle", BOTH, 15_000, ["--idle"],
         {"CPU µs per connect": lambda m: server(m)["cpu_us_per_connection"],
          "KiB per connection": lambda m: server(m)["idle_kib_per_connection"]},
         [Goal("CPU µs per connect", "Sluice", "nchan", 1.25)], publishes=False),
    Work("own", "{streams:,} connections, idle, each with a channel of its own",
         ["nchan", "nchan + Redis", "Sluice", "Sluice + Redis"], 15_000, ["--idle"],
         {"CPU µs per connect": lambda m: server(m)["cpu_us_per_connection"],
          "KiB per connection": lambda m: server(m)["idle_kib_per_connection"]},
         [Goal("CPU µs per connect", "Sluice", "nchan", 1.25),
          Goal("CPU µs per connect", "Sluice + Redis", "nchan + Redis", 1.25)],
         publishes=False, settings={"channels": 15_000}),
    Work("used", "{streams:,} connections after traffic", ["nchan", "Sluice"], 15_000, ["--outstanding", 1],
         {"KiB per connection": lambda m: server(m)["after_kib_per_connection"]}, []),
    Work("channels", "{streams:,} channels with one subscriber each, 3,000 events/s",
         ["nchan", "nchan + Redis", "Sluice", "Sluice + Redis"], 5000, ["--rate", 3000], EVENT,
         [Goal("CPU µs per event", "Sluice", "nchan", 0.75),
          Goal("CPU µs per event", "Sluice + Redis", "nchan + Redis", 0.5)], settings={"channels": 5000}),
    Work("latency", "{streams:,} subscribers, one event a second", BOTH, 10_000,
         ["--rate", 1], {"p50 ms": lambda m: m["traffic"]["latency_us"]["p50"] / 1000,
                         "p99 ms": lambda m: m["traffic"]["latency_us"]["p99"] / 1000},
         floor_goals("p99 ms", 1.2), longer=4),
    Work("publish", "publishing with history through Redis, 64 connections", ["nchan + Redis", "Sluice + Redis"], 1,
         ["--outstanding", 64, "--publishers", 64],
         {"events/s": lambda m: m["traffic"]["events_per_second"], "CPU µs per event": cpu_per_event,
          "of Redis": redis_cpu_per_event},
         [Goal("events/s", "Sluice + Redis", "nchan + Redis", 2.0, at_least=True)]),
    Work("spread", "publishing with history to {streams:,} channels, 2,000 events/s to each master",
         ["Sluice + Redis", "Sluice + Cluster"], 300, [], EVENT,
         [Goal("of Redis", "Sluice + Cluster", "Sluice + Redis", 1.2),
          Goal("CPU µs per event", "Sluice + Cluster", "Sluice + Redis", 1.2)],
         settings={"channels": 300, "Sluice + Redis": ["--rate", 2000], "Sluice + Cluster": ["--rate", 6000]}),
    Work("spread-burst", "publishing with history to {streams:,} channels, 64 connections for each master",
         ["Sluice + Redis", "Sluice + Cluster"], 300, [], EVENT,
         [Goal("of Redis", "Sluice + Cluster", "Sluice + Redis", 1.2),
          Goal("CPU µs per event", "Sluice + Cluster", "Sluice + Redis", 1.2)],
         settings={"channels": 300, "Sluice + Redis": ["--outstanding", 64, "--publishers", 64],
                   "Sluice + Cluster": ["--outstanding", 192, "--publishers", 192]}),
    Work("gzip", "{streams:,} subscribers, 50 JSON events of 170 bytes a second",
         ["Sluice", "Sluice, gzip", "Sluice, zstd"], 1000, ["--rate", 50, "--size", 170, "--data", "json"],
         DELIVERY | {"bytes per delivery": lambda m: m["traffic"]["wire_bytes_per_delivery"]},
         [Goal("CPU µs per delivery", "Sluice, gzip", "Sluice", 1.1),
          Goal("bytes per delivery", "Sluice, gzip", "Sluice", 0.35)],
         settings={"Sluice, gzip": ["--accept-encoding", "gzip"], "Sluice, zstd": ["--accept-encoding", "zstd"]}),
    Work("stalled", "{streams:,} subscribers, 50 events a second, and a client that never reads",
         ["Sluice", "Sluice, stalled"], 1000, ["--rate", 50],
         {"p50 ms": lambda m: m["traffic"]["latency_us"]["p50"] / 1000,
          "p99 ms": lambda m: m["traffic"]["latency_us"]["p99"] / 1000},
         [Goal("p99 ms", "Sluice, stalled", "Sluice", 1.0)], settings={"Sluice, stalled": ["--stall", 1]}),
    Work("resume", "{streams:,} clients come back at once and are sent 100 events each", ["Sluice", "Sluice + Redis"],
         10_000, ["--events", 100],
         {"s": lambda m: m["resume"]["seconds"], "s live, in a burst": lambda m: m["live"]["seconds"],
          "CPU µs per delivery": lambda m: server(m["resume"])["cpu_us_per_delivery"],
          "p99 ms of others, quiet": lambda m: m["quiet"]["watch_latency_us"]["p99"] / 1000,
          "p99 ms of others, meanwhile": lambda m: m["resume"]["watch_latency_us"]["p99"] / 1000}, [],
         command="resume"),
    *(Work(f"growth-{streams}", "growth: {streams:,} subscribers, one event outstanding", ["Sluice"], streams,
           ["--outstanding", 1],
           DELIVERY | {"KiB per connection, idle": lambda m: server(m)["idle_kib_per_connection"],
                       "after traffic": lambda m: server(m)["after_kib_per_connection"]}, [], once=True)
      for streams in (1000, 2000, 5000, 10_000, 18_000)),
    Work("cores", "{streams:,} subscribers, one event outstanding, two shards", ["Sluice, both cores"], 10_000,
         ["--outstanding", 1], DELIVERY, [], once=True),
    *(Work(f"http2-{streams}", "HTTP/2: {streams:,} streams, 100 to a connection, one event outstanding", ["Sluice"],
           streams, ["--outstanding", 1, "--http2", "--streams-per-connection", 100],
           DELIVERY | {"KiB per stream": lambda m: server(m)["after_kib_per_connection"]}, [], once=True)
      for streams in (10_000, 100_000)),
]
