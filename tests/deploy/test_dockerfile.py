"""The image: what goes into it is enough, what is built is ours, and who runs it has no rights."""

import shlex
import subprocess
import sys
from pathlib import Path

from dockerfile import context, instructions, run_build_stage
from places import ROOT


def final(name):
    return [text for stage, instruction, text in instructions() if stage == "final" and instruction == name]


def test_the_linter_is_content():
    hadolint = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_context_is_enough_and_the_programs_are_not_the_empty_ones():
    dependencies, programs = run_build_stage()
    ours = {"gateway/src/lib.rs", "gateway/src/main.rs", "publisher-cli/src/lib.rs", "publisher-cli/src/main.rs"}
    assert set(dependencies) == set(programs) == ours
    taken = [path for path, fresh in programs.items() if fresh]
    assert not taken, f"cargo took the empty {taken} for newer than the sources"


def test_what_is_copied_out_is_what_is_built():
    (build,) = {
        text.rpartition("cargo build ")[2] for stage, name, text in instructions() if stage == "build" and name == "RUN"
    }
    packages = [word for word, before in zip(shlex.split(build)[1:], shlex.split(build)) if before == "-p"]
    (copied,) = [text for text in final("COPY") if "/src/target/" in text]
    assert copied == f"--from=build {' '.join(f'/src/target/release/{name}' for name in packages)} /usr/local/bin/"


def test_nothing_is_sent_that_is_not_needed():
    assert not [path for path in context() if path.startswith(("docs/", "helm/", "tests/e2e", "tests/src", ".git"))]


def test_whoever_runs_it_has_no_rights():
    assert final("USER") == ["65532:65532"]
    # Nothing is installed there, so nothing depends on the day.
    assert not final("RUN")


def test_versions_are_exact_and_of_one_debian():
    build, run = [text.split()[0] for _, name, text in instructions() if name == "FROM"]
    assert build.startswith("rust:") and build.count(".") == 2 and build.endswith("-bookworm")
    assert run.startswith("debian:12.") and run.endswith("-slim")
    needed = next(line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("rust-version"))
    assert needed.split('"')[1] in build


def test_its_health_is_asked_for_at_a_port_that_it_has():
    (health,) = final("HEALTHCHECK")
    ports = dict(setting.split("=") for setting in final("ENV")[0].split())
    assert ports["SLUICE_ADMIN_LISTEN"].rpartition(":")[2] in health and "/livez" in health
    assert final("EXPOSE") == ["8080 8081"]
