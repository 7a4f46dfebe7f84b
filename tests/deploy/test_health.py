"""What the image and Compose ask a gateway for its health with: the real command, a gateway that is well, and none."""

import json
import subprocess

import yaml

from chart import Release
from dockerfile import instructions
from places import ROOT, SLUICE, clean_environment
from servers import gateway, trial_redis


def commands():
    (image,) = [text for stage, name, text in instructions() if stage == "final" and name == "HEALTHCHECK"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["gateway-1"]["healthcheck"]["test"]
    assert compose[0] == "CMD"
    return [json.loads(image.partition(" CMD ")[2]), compose[1:]]


def outcomes(port):
    for command in commands():
        assert command[0] == "sluice"
        here = [part.replace("127.0.0.1:8081", f"127.0.0.1:{port}") for part in command[1:]]
        assert here != command[1:], "asks the admin port"
        yield subprocess.run([SLUICE, *here], env=clean_environment(), capture_output=True, timeout=20).returncode


def test_health(tmp_path, foreign, default):
    redis, folder = tmp_path / "redis", tmp_path / "gateway"
    redis.mkdir()
    folder.mkdir()
    with trial_redis(default, redis) as redis_port, gateway(default, folder, foreign, redis_port) as ports:
        assert list(outcomes(ports.admin)) == [0, 0]
        # The public port has no health to ask for.
        assert list(outcomes(ports.http)) == [1, 1]
    assert list(outcomes(ports.admin)) == [1, 1]
