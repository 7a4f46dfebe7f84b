"""A Dockerfile as far as it goes without images: its instructions, what is sent to the builder, and its build stage as
a script. Knows what ours uses, and fails on anything else."""

import json
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch

from places import ROOT, TARGET, clean_environment


def instructions():
    """(stage, instruction, text) for each, comments left out and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stage = None
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stage = rest.partition(" AS ")[2] or "final"
        yield stage, name, " ".join(rest.split())


def context():
    """Paths that .dockerignore lets through, by git's list of files: later lines win, as Docker has it."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def sent(path):
        kept = True
        for rule in rules:
            pattern = rule.removeprefix("!")
            if fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                kept = rule.startswith("!")
        return kept

    # New files that are not committed yet too, and no deleted ones.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [path for path in listed.stdout.splitlines() if sent(path) and (ROOT / path).is_file()]


def copied(text, files):
    """A COPY out of the context: (source, destination) for each file."""
    *sources, destination = shlex.split(text)
    for source in sources:
        found = [path for path in files if fnmatch(path, source) or path.startswith(f"{source}/")]
        assert found, f"COPY {source}: nothing of that name is in the context"
        for path in found:
            if path.startswith(f"{source}/"):
                yield path, f"{destination}/{path.removeprefix(f'{source}/')}"
            else:
                yield path, f"{destination}{path.rpartition('/')[2]}" if destination.endswith("/") else destination


def run_build_stage():
    """Does the build stage's steps in a folder of their own; where it builds for release, the same is checked here, with
    what was compiled of the dependencies before. Gives for each such step what became of our packages: their targets'
    paths, with whether they were taken as they were."""
    folder, files = TARGET / "image", context()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    steps = []
    for stage, name, text in instructions():
        if stage != "build" or name in ("FROM", "WORKDIR", "ARG", "ENV"):
            continue
        if name == "COPY":
            for source, destination in copied(text, files):
                (folder / destination).parent.mkdir(parents=True, exist_ok=True)
                # With its time, as Docker does.
                shutil.copy2(ROOT / source, folder / destination)
            continue
        assert name == "RUN", f"what does {name} do?"
        before, _, arguments = text.partition("cargo build --locked --release ")
        assert arguments, text
        shell = f"{before} cargo check --locked --offline --message-format=json {arguments}"
        environment = clean_environment(CARGO_TARGET_DIR=str(TARGET))
        done = subprocess.run(["sh", "-ec", shell], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shell}\n{done.stderr}"
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        steps.append({
            message["target"]["src_path"].removeprefix(f"{folder}/"): message["fresh"]
            for message in messages
            if message["reason"] == "compiler-artifact" and message["target"]["src_path"].startswith(str(folder))
        })  # fmt: skip
    return steps
