"""Every way of using the chart that is described or thought of: what it renders is valid, safe, and read by the
gateway."""

import tomllib

import kubernetes_validate
import pytest

from chart import Release, complaints, fenced, values
from places import ROOT
from policy import wrong

CASES = {"default": ""} | {
    file.stem: file.read_text() for file in sorted((ROOT / "tests/deploy/values").glob("*.yaml"))
}
CASES |= {f"docs-{n}": text for n, text in enumerate(fenced((ROOT / "docs/kubernetes.md").read_text(), "yaml"))}
# The oldest that the chart allows, and the newest that is known.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# Whose definitions are not part of Kubernetes; policy.py looks at these.
OTHERS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}


@pytest.fixture(scope="module", params=CASES)
def release(request):
    return Release(values(CASES[request.param]))


def test_manifests_are_valid(release):
    seen = set()
    for item in release.objects:
        seen.add((item["kind"], item["metadata"]["name"]))
        if item["kind"] not in OTHERS:
            for version in VERSIONS:
                kubernetes_validate.validate(item, version, strict=True)
    assert len(seen) == len(release.objects), "two of one name"


def test_manifests_keep_to_the_policy(release):
    assert wrong(release, tomllib.loads(release.toml)) == []


def test_the_gateway_reads_the_configuration(release, tmp_path, foreign):
    path = release.lay_out(tmp_path, foreign)
    assert complaints(release.environment(), "--config", path) == ""


def test_settings_arrive_as_they_were_given():
    config = tomllib.loads(Release(values(CASES["open"])).toml)
    assert config["limits"] == {
        "connections": 50000,
        "connections_per_address": "off",
        "publish_rate_per_channel": "10/s burst 50",
    }
    assert config["hub"] == {"queue_events": 16777216}
    assert config["stream"] == {"max_age": "off", "compression": False}
    assert [rule["history"] for rule in config["channel"]] == ["off", {"size": 100, "age": "10m"}]
    assert "key" not in config["auth"] and config["auth"]["open"] is True


def test_awkward_text_arrives_as_it_was_given():
    text = 'a "quoted" \\ back <b> & ü\ntwo lines\t$x {{ y }}'
    config = tomllib.loads(Release({"config": {"auth": {"open": True}, "redis": {"prefix": text}}}).toml)
    assert config["redis"]["prefix"] == text


def test_streams_end_now_and_then_while_replicas_come_and_go():
    assert "stream" not in tomllib.loads(Release().toml)
    scaled = tomllib.loads(Release(values(CASES["scaled"])).toml)
    assert scaled["stream"]["max_age"] == "1h"
    assert tomllib.loads(Release(values(CASES["scaled-by-connections"])).toml)["stream"]["max_age"] == "30m"
    assert tomllib.loads(Release(values(CASES["scaled-by-cpu"])).toml)["stream"]["max_age"] == "off"


def test_another_configuration_takes_other_pods_and_a_new_secret_does_not():
    def checksum(given=None):
        return Release(given).one("Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum(), "keys are made anew each time here, and must not count"
    assert checksum() != checksum({"config": {"history": {"size": 7}}})
