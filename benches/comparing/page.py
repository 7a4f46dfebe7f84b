"""Makes the table of docs/benchmarks.md out of what was measured.

The table stands between two markers; what is around it is written by hand. Work that was not done this time keeps the
rows that it has, and each run says which works are its own.
"""

import datetime
import pathlib
import platform
import shlex
import statistics
import subprocess

from . import servers, works

BEGIN, END = "<!-- benches/compare writes from here -->", "<!-- to here -->"
HEAD = ["| work | figure | server | measured | ratio | to reach |", "| --- | --- | --- | --- | --- | --- |"]
GOOD = "Every delivery was checked: none was lost, doubled or out of order, and every stream was let in."
BAD = "Not every delivery was in order: "
RUN = "- `"


class Run:
    """One run of the tool, as the page tells of it."""

    def __init__(self, rounds, seconds, names, options):
        command = shlex.join(["benches/compare", *options])
        what = f"{rounds} round{'s' if rounds > 1 else ''} of {seconds:g} s"
        self.names = names
        self.said = f"{datetime.date.today().isoformat()} at {commit()}, {what}: `{command}`"

    def line(self):
        return f"{RUN}{', '.join(self.names)}`: {self.said}"

    @classmethod
    def read(cls, line):
        """The run that a line of the page tells of."""
        run = cls.__new__(cls)
        names, _, run.said = line.removeprefix(RUN).partition("`: ")
        run.names = names.split(", ")
        return run


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values):
    """The median, and between what."""
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def rows(results):
    """The table's lines by work's title. `results`: pairs of a work and, by server, its figures, a pair for each round."""
    lines = {}
    for work in unique(results):
        done = [figures for other, figures in results if other.name == work.name]
        for figure in work.figures:
            for kind in work.servers:
                values = [row[kind][figure] for row in done]
                if not any(values):
                    continue
                ratio, aim = "", ""
                for goal in [goal for goal in work.goals if (goal.figure, goal.of) == (figure, kind)]:
                    ratios = [row[goal.of][figure] / row[goal.than][figure] for row in done if row[goal.than][figure]]
                    ratio = f"{spread(ratios)} × {goal.than}"
                    aim = f"{'at least' if goal.at_least else 'at most'} {goal.bound:.3g} ×"
                line = f"| {work.title} | {figure} | {kind} | {spread(values)} | {ratio} | {aim} |"
                lines.setdefault(work.title, []).append(line)
    return lines


def faulty(results):
    """Works and servers whose deliveries were not all in order."""
    return sorted({f"{work.title}, {kind}" for work, row in results for kind in row if row[kind]["faults"]})


def unique(results):
    found = {}
    for work, _ in results:
        found.setdefault(work.name, work)
    return list(found.values())


def commit():
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=servers.ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "no commit"


def machine():
    processor = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return (
        f"{len(servers.CORES)} cores of {processor}, Linux {platform.release()}; server on one core, load and Redis on "
        "another. Medians of the rounds, and between what they lie."
    )


def text(lines, runs, faults):
    """All of it: lines by work's title, runs, and what was not in order."""
    order = [work.title for work in works.ALL]
    titles = sorted(lines, key=lambda title: order.index(title) if title in order else len(order))
    said = BAD + "; ".join(faults) if faults else GOOD
    table = [line for title in titles for line in lines[title]]
    return "\n".join([machine(), "", *[run.line() for run in runs], "", *HEAD, *table, "", said])


def write(path, results, run):
    """Puts what was measured into the page, between the markers, in the place of what the same works had."""
    page = path.read_text()
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    known = {work.title: work.name for work in works.ALL}
    lines, runs, faults = {}, [], []
    for line in old.splitlines():
        title = line.split("|")[1].strip() if line.startswith("| ") else ""
        if known.get(title, run.names[0]) not in run.names:
            lines.setdefault(title, []).append(line)
        elif line.startswith(RUN):
            runs.append(Run.read(line))
        elif line.startswith(BAD):
            faults = line.removeprefix(BAD).split("; ")
    for other in runs:
        other.names = [name for name in other.names if name not in run.names]
    runs = [other for other in runs if other.names] + [run]
    done = {work.title for work in unique(results)}
    faults = [fault for fault in faults if not any(fault.startswith(f"{title}, ") for title in done)]
    new = text(lines | rows(results), runs, faults + faulty(results))
    path.write_text(f"{before}{BEGIN}\n\n{new}\n\n{END}{after}")
