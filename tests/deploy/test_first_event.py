"""What NOTES and `helm test` say, done: with a gateway and a Redis that run as the chart has them."""

import contextlib
import re
import subprocess

import pytest

from chart import MOUNT, Release, values
from places import ROOT, SLUICE, clean_environment
from servers import gateway, trial_redis, until

EXISTING = (ROOT / "tests/deploy/values/existing-key.yaml").read_text()
CASES = {"default": "", "existing-key": EXISTING, "open": "config: { auth: { open: true } }"}


class Place:
    """A release that runs, and a shell in which its commands work."""

    def __init__(self, release, folder, port):
        self.release, self.folder, self.port = release, folder, port

    def here(self, text):
        """A command for the cluster, as it is here: the pod is this machine, its mounts are a folder."""
        text = re.sub(r"kubectl --namespace demo exec deployment/sluice --container gateway --", "", text)
        return text.replace(MOUNT, str(self.folder)).replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")

    def shell(self, script, **options):
        environment = clean_environment(**options.pop("env", {}))
        environment["PATH"] = f"{SLUICE.parent}:{environment['PATH']}"
        return subprocess.Popen(["sh", "-ec", script], stdout=subprocess.PIPE, text=True, env=environment, **options)

    def output(self, script, **options):
        process = self.shell(script, **options)
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out
        return out


@pytest.fixture(params=CASES)
def place(request, tmp_path, foreign):
    release = Release(values(CASES[request.param]))
    with contextlib.ExitStack() as stack:
        redis_folder, folder = tmp_path / "redis", tmp_path / "gateway"
        redis_folder.mkdir()
        folder.mkdir()
        redis_port = stack.enter_context(trial_redis(release, redis_folder))
        yield Place(release, folder, stack.enter_context(gateway(release, folder, foreign, redis_port)).http)


def commands(notes):
    """The indented commands of the notes, with continued lines as one."""
    joined = notes.replace("\\\n", "")
    return [line.strip() for line in joined.splitlines() if line.startswith("  ")]


def test_the_notes_lead_to_the_first_event(place):
    said = [place.here(line) for line in commands(place.release.notes)]
    token = [line for line in said if line.startswith("TOKEN=")]
    (listen,) = [line for line in said if "/events?channel=" in line]
    (publish,) = [line for line in said if " -d " in line]
    listener = place.shell("\n".join([*token, f"exec {listen} --silent"]))
    try:
        # The stream's first line says that the subscription stands.
        assert listener.stdout.readline().startswith("retry:")
        answer = place.output("\n".join([*token, f"{publish} --silent --fail-with-body"]))
        assert '"position":"' in answer, "published with history, through Redis"
        lines = iter(listener.stdout.readline, "")
        assert next(line for line in lines if line.startswith("data:")) == "data: hello\n"
    finally:
        listener.kill()
        listener.wait()


def test_the_test_pod_sees_an_event(place):
    pod = place.release.one("Pod", "sluice-test")
    (container,) = pod["spec"]["containers"]
    assert container["command"][:2] == ["sh", "-ec"]
    (url,) = [entry["value"] for entry in container["env"] if entry["name"] == "SLUICE_URL"]
    assert url == "http://sluice.demo.svc:80"
    out = place.output(place.here(container["command"][2]), env={"SLUICE_URL": f"http://127.0.0.1:{place.port}"})
    assert out == "[sluice.helm.test] It works\n"


def test_the_test_pod_fails_where_nothing_serves(tmp_path, default):
    place = Place(default, tmp_path, 1)
    (tmp_path / "signing.key").write_bytes(default.secret("sluice-signing-key", "signing.key"))
    script = default.one("Pod", "sluice-test")["spec"]["containers"][0]["command"][2]
    # Less patience than in a cluster.
    script = place.here(script).replace("--timeout 60s", "--timeout 2s")
    process = place.shell(script, env={"SLUICE_URL": "http://127.0.0.1:1"}, stderr=subprocess.DEVNULL)
    until(lambda: process.poll() is not None, "the test ends")
    assert process.returncode == 1


def test_everything_that_the_notes_ask_to_replace():
    notes = Release().notes
    for thing in ("the trial Redis", "the Secret sluice-signing-key", "image.repository"):
        assert f"TO REPLACE: {thing}" in notes
    own = "config: { redis: { url: 'redis://r' } }\nsigningKey: { existingSecret: { name: k } }\nimage: { repository: r/s }"
    assert "TO REPLACE" not in Release(values(own)).notes
    assert "Whoever reaches the Service" in Release(values("config: { auth: { open: true } }")).notes
    assert "takes a metrics adapter" in Release(values("autoscaling: { enabled: true }")).notes
