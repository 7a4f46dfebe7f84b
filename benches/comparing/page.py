"""Makes the table of docs/benchmarks.md out of what was measured.

The table stands between two markers; what is around it is written by hand.
"""

import datetime
import pathlib
import platform
import statistics
import subprocess

from . import servers

BEGIN, END = "<!-- benches/compare writes from here -->", "<!-- to here -->"


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values):
    """The median, and between what."""
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def table(results, rounds, seconds):
    """`results`: pairs of a work and, by server, its figures, a pair for each round."""
    lines = [machine(), f"{rounds} rounds of {seconds:g} s each; medians, and between what they lie.", ""]
    lines += ["| work | figure | server | measured | ratio | to reach |", "| --- | --- | --- | --- | --- | --- |"]
    for work in unique(results):
        rows = [figures for done, figures in results if done.name == work.name]
        for figure in work.figures:
            for kind in work.servers:
                values = [row[kind][figure] for row in rows]
                if not any(values):
                    continue
                goals = [goal for goal in work.goals if (goal.figure, goal.of) == (figure, kind)]
                ratio, aim = "", ""
                for goal in goals:
                    ratios = [row[goal.of][figure] / row[goal.than][figure] for row in rows if row[goal.than][figure]]
                    ratio = f"{spread(ratios)} × {goal.than}"
                    aim = f"{'at least' if goal.at_least else 'at most'} {goal.bound:.3g} ×"
                lines.append(f"| {work.title} | {figure} | {kind} | {spread(values)} | {ratio} | {aim} |")
    faulty = [(work.title, kind) for work, row in results for kind in row if row[kind]["faults"]]
    lines += ["", "Every delivery was checked: none was lost, doubled or out of order, and every stream was let in."]
    if faulty:
        lines[-1] = "Not every delivery was in order: " + "; ".join(f"{title}, {kind}" for title, kind in faulty)
    return "\n".join(lines)


def unique(results):
    found = {}
    for work, _ in results:
        found.setdefault(work.name, work)
    return list(found.values())


def machine():
    processor = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=servers.ROOT, capture_output=True, text=True)
    return (
        f"{datetime.date.today().isoformat()}, at {commit.stdout.strip() or 'no commit'}: {len(servers.CORES)} cores of "
        f"{processor}, Linux {platform.release()}; server on one core, load and Redis on another."
    )


def write(path, text):
    """Puts the table into the page, between the markers."""
    page = path.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
