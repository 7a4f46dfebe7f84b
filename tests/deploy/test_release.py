"""What a release begins with: one version, wherever it stands."""

import shutil
import subprocess

import pytest

from places import ROOT

FILES = ["Cargo.toml", "Cargo.lock", "CHANGELOG.md", "helm/sluice/Chart.yaml", "deploy/release"]


@pytest.fixture
def tree(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def check(tree, *arguments):
    command = [tree / "deploy/release", *arguments]
    return subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, timeout=20)


def version():
    text = (ROOT / "Cargo.toml").read_text()
    return text.split("[workspace.package]")[1].split('version = "')[1].split('"')[0]


def test_every_place_has_the_same_version(tree):
    done = check(tree, "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("Cargo.toml", 'version = "{}"\nedition', 'version = "9.9.9"\nedition'),
        ("helm/sluice/Chart.yaml", "\nversion: {}", "\nversion: 9.9.9"),
        ("helm/sluice/Chart.yaml", 'appVersion: "{}"', 'appVersion: "9.9.9"'),
        ("Cargo.lock", 'name = "sluice-gateway"\nversion = "{}"', 'name = "sluice-gateway"\nversion = "9.9.9"'),
        ("CHANGELOG.md", "## Unreleased", "## Later"),
    ],
)
def test_one_that_differs_is_named(tree, file, old, new):
    text = (tree / file).read_text()
    old = old.format(version())
    assert text.count(old) == 1, f"{file} has {old!r} once"
    (tree / file).write_text(text.replace(old, new))
    done = check(tree, "--check")
    assert done.returncode == 1
    assert file.rsplit("/", 1)[-1] in done.stderr


def test_without_a_section_of_its_own_in_the_changelog_nothing_is_built(tree):
    done = check(tree)
    assert done.returncode == 1
    assert f"CHANGELOG.md has no section for {version()}" in done.stderr
    assert not (tree / "dist").exists()
