"""values.schema.json: the gateway's settings as they are, and nothing open but what is the user's to name."""

import json
import subprocess

import helm_python as helm
import yaml

from config_schema import SCHEMA, as_text, with_config
from places import CHART

# Maps of the user's own keys, or parts of Kubernetes' API, which Kubernetes checks.
FREE = {
    "texts", "global", "valueFrom", "podSelector", "namespaceSelector", "ipBlock", "requests", "limits", "affinity",
    "extraVolumes", "extraVolumeMounts", "topologySpreadConstraints", "tolerations", "extra",
}  # fmt: skip


def test_config_is_what_the_gateway_reads():
    text = SCHEMA.read_text()
    assert as_text(with_config(json.loads(text))) + "\n" == text, "run python tests/deploy/config_schema.py"


def test_what_is_unknown_is_refused_everywhere():
    def open_maps(schema, name):
        if isinstance(schema, list):
            for item in schema:
                yield from open_maps(item, name)
        elif isinstance(schema, dict):
            if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
                yield name
            for key, item in schema.items():
                keeps = key in ("items", "anyOf", "properties", "$defs", "type", "required")
                yield from open_maps(item, name if keeps else key)

    assert set(open_maps(json.loads(SCHEMA.read_text()), "")) <= FREE


def test_every_value_has_a_schema_and_a_default():
    schema, defaults = json.loads(SCHEMA.read_text()), yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(part, values, path):
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" not in part or path in ("config", "resources", "trialRedis.resources"):
            return
        known = set(part["properties"]) - {"global"}
        assert known == set(values), f"{path}: {known ^ set(values)}"
        for key in known:
            compare(part["properties"][key], values[key], f"{path}.{key}".lstrip("."))

    compare(schema, defaults, "")


def test_helm_finds_nothing_to_complain_of():
    report = helm.lint(CHART, strict=True)
    complaints = [message for message in report["messages"] if message["severity"] > 1]
    assert not complaints and not report["errors"], report


def test_the_package_has_no_file_too_many(tmp_path):
    archive = helm.package(CHART, destination=tmp_path)
    names = subprocess.run(["tar", "tzf", archive], capture_output=True, text=True, check=True).stdout.split()
    kinds = {name.removeprefix("sluice/").split("/")[0] for name in names}
    assert kinds <= {"Chart.yaml", "values.yaml", "values.schema.json", "templates", "files", ".helmignore"}, kinds
