"""What the tests share."""

import subprocess

import pytest

from chart import Release
from places import GATEWAY, SLUICE


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="write golden files anew")


@pytest.fixture(scope="session", autouse=True)
def programs():
    for program in (GATEWAY, SLUICE):
        assert program.exists(), f"{program} is missing: cargo build --workspace --bins"


@pytest.fixture(scope="session")
def default():
    return Release()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of its own authority and its key, in PEM."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=events.example.com", "-addext", "subjectAltName=DNS:events.example.com,IP:127.0.0.1",
         "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=folder, check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    return (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()


@pytest.fixture(scope="session")
def foreign(certificate):
    """What the user's own Secrets have in them, by the name of the file it becomes."""

    def content(path):
        if path.endswith(".key") and not path.startswith("signing"):
            return certificate[1]
        if path.endswith(".crt"):
            return certificate[0]
        return b"redis+sentinel://sluice:secret@s1:26379,s2:26379/main" if path == "redis-url" else path.encode() * 5

    return content
