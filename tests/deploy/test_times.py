"""The times that a pod takes to leave, from the drain settings, as the gateway reads them."""

import math

import pytest

from chart import Release

# delay, window, and what follows: sleep of preStop, grace, minReadySeconds.
TIMES = [
    (None, None, 5, 50, 35),
    ("0s", "0s", 10, 20, 0),
    ("500ms", "0.25m", 10, 36, 16),
    ("9.2s", "30s", 1, 51, 40),
    ("1.5m", "1h", 0, 3700, 3690),
    ("10S", "30 s", 0, 50, 40),
    ("0.0005s", "1ms", 10, 21, 1),
    ("10m", "0s", 0, 610, 600),
]


@pytest.mark.parametrize("delay, window, sleep, grace, ready", TIMES)
def test_times_follow_the_drain_settings(delay, window, sleep, grace, ready):
    drain = {key: value for key, value in (("delay", delay), ("window", window)) if value}
    release = Release({"config": {"drain": drain}})
    lifecycle = release.container.get("lifecycle")
    assert lifecycle == ({"preStop": {"sleep": {"seconds": sleep}}} if sleep else None)
    assert release.pod["terminationGracePeriodSeconds"] == grace
    spec = release.gateway["spec"]
    assert spec["minReadySeconds"] == ready
    assert spec["progressDeadlineSeconds"] == max(600, ready + 300)


def test_nothing_is_sent_to_a_pod_when_its_streams_begin_to_end():
    release = Release({"endpointRemovalSeconds": 12, "config": {"drain": {"delay": "2.5s"}}})
    sleep = release.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep == math.ceil(12 - 2.5)
    assert release.pod["terminationGracePeriodSeconds"] == sleep + math.ceil(2.5 + 30) + 10


def test_one_may_give_more_and_not_less():
    assert Release({"terminationGracePeriodSeconds": 300}).pod["terminationGracePeriodSeconds"] == 300
