"""Real programs on loopback: a Redis, and a gateway with what the chart renders."""

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import namedtuple
from pathlib import Path

from places import GATEWAY


Ports = namedtuple("Ports", "http admin")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, what, seconds=30):
    """Waits until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def running(command, folder, **options):
    """A program while the block runs; what it said is shown if the block fails."""
    log = folder / f"{command[0]!s}.log".rpartition("/")[2]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def status(url):
    """The status of a GET, or None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@contextlib.contextmanager
def gateway(release, folder, foreign, redis_port):
    """A gateway with the configuration that the chart renders; only paths, ports and the address of Redis differ. Gives
    its two ports."""
    config = Path(release.lay_out(folder, foreign))
    config.write_text(config.read_text().replace(f"{release.name}-redis:6379", f"127.0.0.1:{redis_port}"))
    port, admin = free_port(), free_port()
    environment = release.environment()
    for variable, free in (("SLUICE_LISTEN", port), ("SLUICE_ADMIN_LISTEN", admin)):
        address, _, _ = environment[variable].rpartition(":")
        environment[variable] = f"{address}:{free}".replace("0.0.0.0", "127.0.0.1")
    command = [GATEWAY, *(argument.replace("/etc/sluice", str(folder)) for argument in release.container["args"])]
    with running(command, folder, env=environment) as process:

        def ready():
            assert process.poll() is None, "the gateway has ended"
            return status(f"http://127.0.0.1:{admin}/readyz") == 200

        until(ready, "the gateway is ready")
        yield Ports(port, admin)
        # On SIGTERM it would take its time.
        process.kill()


@contextlib.contextmanager
def trial_redis(release, folder):
    """The trial Redis as its pod would run it, in a folder of its own. Gives its port."""
    deployment = release.one("Deployment", f"{release.name}-redis")["spec"]["template"]["spec"]
    (container,) = deployment["containers"]
    data = folder / "data"
    data.mkdir()
    port = free_port()
    command = [
        part.replace("/data", str(data)).replace("requirepass", f"port {port}\nbind 127.0.0.1\nrequirepass")
        for part in container["command"]
    ]
    environment = {"PATH": "/usr/bin:/bin"}
    for entry in container["env"]:
        reference = entry["valueFrom"]["secretKeyRef"]
        environment[entry["name"]] = release.secret(reference["name"], reference["key"]).decode()
    probe = [
        *container["readinessProbe"]["exec"]["command"][:1],
        "-p",
        str(port),
        *container["readinessProbe"]["exec"]["command"][1:],
    ]
    with running(command, folder, env=environment):
        until(lambda: b"PONG" in subprocess.run(probe, env=environment, capture_output=True).stdout, "Redis answers")
        yield port
