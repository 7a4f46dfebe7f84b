"""A value that is set to null has no default any more: what is none without it is none, and the rest is named as missing."""

import tomllib

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from chart import Release, values
from places import CHART
from policy import wrong
from test_render import OTHERS, VERSIONS

# All that is off by default, so that each value counts.
ON = """
autoscaling: { enabled: true }
ingress: { enabled: true, hosts: [events.example.com] }
httpRoute: { enabled: true, parentRefs: [{ name: public }] }
networkPolicy: { egress: { enabled: true } }
serviceMonitor: { enabled: true }
prometheusRule: { enabled: true }
dashboard: { enabled: true }
"""


def paths(tree, above=()):
    """Every value of the chart; what is of the user's own keys, such as annotations, ends there."""
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict) and key not in ("annotations", "labels"):
            yield from paths(value, (*above, key))


def with_null(tree, path):
    key, *rest = path
    return tree | {key: with_null(tree.get(key) or {}, rest) if rest else None}


@pytest.mark.parametrize("path", list(paths(yaml.safe_load((CHART / "values.yaml").read_text()))), ids=".".join)
def test_null(path):
    try:
        release = Release(with_null(values(ON), path))
    except helm.HelmError as error:
        said = str(error)
        missing = f"missing property '{path[-1]}'" in said
        assert missing or "these values do not go together" in said and "no value" not in said, said
        return
    assert "<no value>" not in "".join(release.files.values())
    assert wrong(release, tomllib.loads(release.toml)) == []
    for item in release.objects:
        if item["kind"] not in OTHERS:
            kubernetes_validate.validate(item, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", ["config", "resources", "redis", "autoscaling", "service", "replicaCount"])
def test_what_is_needed_is_named(name):
    with pytest.raises(helm.HelmError, match=f"missing property '{name}'"):
        Release({name: None})
