"""Makes what stands in docs/benchmarks.md between two markers; what is around them is written by hand.

A `Block` is that part: the rows of the table, and what was wrong. Each row belongs to a work, by its title, and to a
run, so that some works can be measured anew and the others stay, with the run that they are of.
"""

import datetime
import pathlib
import platform
import re
import statistics
import subprocess
from dataclasses import dataclass

from . import servers

BEGIN, END = "<!-- benches/compare writes from here -->", "<!-- to here -->"
COLUMNS = ["work", "figure", "server", "measured", "ratio", "to reach"]
ALL_WELL = "Every delivery was checked: none was lost, doubled or out of order, and every stream was let in."
NOT_WELL = "Not all went as it should:"


@dataclass(frozen=True)
class Row:
    """`cells` begin with the work's title; `run` is what the page says of the run."""

    run: str
    cells: tuple

    @property
    def title(self):
        return self.cells[0]


@dataclass(frozen=True)
class Block:
    """`faults` are lines, each of which begins with a work's title and a comma."""

    rows: list
    faults: list

    def text(self):
        runs = list(dict.fromkeys(row.run for row in self.rows))
        are_many = len(runs) > 1
        columns = COLUMNS + ["run"] if are_many else COLUMNS
        lines = [f"{number}. {run}" for number, run in enumerate(runs, 1)] if are_many else runs
        lines = [*lines, "", line(columns), line(["---"] * len(columns))]
        for row in self.rows:
            lines.append(line([*row.cells, str(runs.index(row.run) + 1)] if are_many else row.cells))
        lines += ["", *([NOT_WELL, "", *(f"- {fault}" for fault in self.faults)] if self.faults else [ALL_WELL])]
        return "\n".join(lines)

    def onto(self, older, order, forgets):
        """This one with the rows of the other works of an older one, by an order of titles. Works that are not in it
        stay behind the one that they stood behind; if `forgets`, they go."""
        measured = {row.title for row in self.rows}
        kept = [row for row in older.rows if row.title not in measured and not (forgets and row.title not in order)]
        faults = [fault for fault in older.faults if any(fault.startswith(f"{row.title}, ") for row in kept)]
        place, places = -1, []
        for row in kept:
            place = order.index(row.title) if row.title in order else place
            places.append((place, row))
        places += [(order.index(row.title), row) for row in self.rows]
        # Stable, so that the rows of a work keep their order.
        return Block([row for _, row in sorted(places, key=lambda pair: pair[0])], faults + self.faults)


def line(cells):
    return f"| {' | '.join(cells)} |"


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values):
    """The median, and between what."""
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def block(results, run, scale=1):
    """`results`: by work, a list of the rounds, each its outcome by server."""
    rows, faults = [], []
    for work, rounds in results.items():
        title = work.titled(scale)
        for figure in work.figures:
            for kind in work.servers:
                values = [done[kind].figures[figure] for done in rounds]
                if any(values):
                    ratio, aim = compared(work, figure, kind, rounds)
                    rows.append(Row(run, (title, figure, kind, spread(values), ratio, aim)))
        for kind in work.servers:
            said = dict.fromkeys(fault for done in rounds for fault in done[kind].faults)
            if said:
                faults.append(f"{title}, {kind}: {'; '.join(said)}")
    return Block(rows, faults)


def compared(work, figure, kind, rounds):
    """The ratio that is aimed at, and the aim; empty where there is none."""
    for goal in work.goals:
        if (goal.figure, goal.of) == (figure, kind):
            pairs = [(done[goal.of].figures[figure], done[goal.than].figures[figure]) for done in rounds]
            ratios = [of / than for of, than in pairs if than]
            aim = f"{'at least' if goal.at_least else 'at most'} {goal.bound:.3g} ×"
            return (f"{spread(ratios)} × {goal.than}" if ratios else ""), aim
    return "", ""


def run(command, rounds, seconds, once):
    """What the page says of a run: where, when, how long and with which command; `once` are works of one round."""
    processor = "unknown processor"
    for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            processor = text.partition(":")[2].strip()
            break
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=servers.ROOT, capture_output=True, text=True)
    counted = "One round" if rounds == 1 else f"{rounds} rounds"
    few = f", one round of {', '.join(once)}" if once and rounds > 1 else ""
    return (
        f"{datetime.date.today().isoformat()}, at {commit.stdout.strip() or 'no commit'}: {len(servers.CORES)} cores of "
        f"{processor}, Linux {platform.release()}; server on one core, load and Redis on another. "
        f"{counted} of {seconds:g} s each{few}; medians, and between what they lie: `{command}`."
    )


def parts(page):
    """What is before the block, in it, and behind it."""
    before, begins, rest = page.partition(BEGIN)
    inside, ends, after = rest.partition(END)
    if not begins or not ends:
        raise ValueError(f"the page has no place for the table, between {BEGIN} and {END}")
    return before, inside, after


def read(path):
    """The block that the page has."""
    inside = parts(path.read_text())[1]
    head = inside.partition("\n|")[0].strip()
    listed = re.findall(r"^\d+\. (.*)$", head, re.MULTILINE)
    runs = listed or [" ".join(head.split())]
    rows = []
    for text in inside.splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")] if text.startswith("|") else []
        if len(cells) < len(COLUMNS) or cells[: len(COLUMNS)] == COLUMNS or cells[0] == "---":
            continue
        of = int(cells[len(COLUMNS)]) - 1 if len(cells) > len(COLUMNS) else 0
        rows.append(Row(runs[of], tuple(cells[: len(COLUMNS)])))
    faults = [text.removeprefix("- ") for text in inside.splitlines() if text.startswith("- ")]
    return Block(rows, faults)


def write(path, block):
    """Puts the block into the page, between the markers."""
    before, _, after = parts(path.read_text())
    path.write_text(f"{before}{BEGIN}\n\n{block.text()}\n\n{END}{after}")
