"""values.schema.json: the gateway's settings as they are, and nothing open but what is the user's to name."""

import json
import re
import subprocess

import helm_python as helm
import yaml

from config_schema import RANGES, SCHEMA, as_text, ranges, with_config
from places import CHART, gateway_says

# Maps of the user's own keys, or parts of Kubernetes' API, which Kubernetes checks.
FREE = {
    "global", "valueFrom", "podSelector", "namespaceSelector", "requests", "limits", "affinity", "extraVolumes",
    "extraVolumeMounts", "topologySpreadConstraints", "tolerations", "extra",
}  # fmt: skip


def test_config_is_what_the_gateway_reads():
    text = SCHEMA.read_text()
    assert as_text(with_config(json.loads(text))) + "\n" == text, "run python tests/deploy/config_schema.py"
    found = ranges(gateway_says("--print-config"))
    assert as_text(found) + "\n" == RANGES.read_text(), "run python tests/deploy/config_schema.py"
    settings = json.loads(text)["properties"]["config"]["properties"]
    kinds = [
        f"{section}.{key}"
        for section, part in settings.items()
        for key, kind in part.get("properties", {}).items()
        if any(f"#/definitions/{name}" in json.dumps(kind) for name in ("duration", "size"))
    ]
    assert list(found) == kinds, "a duration or a size of no range"


def test_what_is_unknown_is_refused_everywhere():
    def open_maps(schema, name):
        if isinstance(schema, list):
            for item in schema:
                yield from open_maps(item, name)
        elif isinstance(schema, dict):
            if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
                yield name
            for key, item in schema.items():
                keeps = key in ("items", "anyOf", "properties", "definitions", "type", "required")
                yield from open_maps(item, name if keeps else key)

    assert set(open_maps(json.loads(SCHEMA.read_text()), "")) <= FREE


def test_every_value_has_a_schema_and_a_default():
    schema, defaults = json.loads(SCHEMA.read_text()), yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(part, values, path):
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
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


def test_defaults_that_templates_reckon_with_are_the_gateways():
    """`dig "drain" "delay" "5s"`: what holds where the values say nothing."""
    section, defaults = "", {}
    for line in gateway_says("--print-config").splitlines():
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = head[1]
        elif key := re.match(r"#(\w+) = (.+)", line):
            defaults[section, key[1]] = json.loads(key[2])
    used = set()
    for file in sorted((CHART / "templates").rglob("*.*")):
        for *path, default in re.findall(
            r'dig "(\w+)" "(\w+)" ("[^"]*"|\w+) (?:\$?\.Values\.|\$)config', file.read_text()
        ):
            # What is only asked whether it is set.
            if default in ('""', "list"):
                continue
            used.add(tuple(path))
            assert json.loads(default) == defaults[tuple(path)], f"{file.name}: {path}"
    assert len(used) > 8, used
