"""The schema of the chart's `config`, made from the gateway's own reference (`sluice-gateway --print-config`).

So a setting that is misspelt, of the wrong kind or unknown is refused before anything is installed. From where to where
durations and sizes go no schema can say: that is a file of its own, which the chart's checks read. What settings are to each
other the gateway says itself, at its start.

    python tests/deploy/config_schema.py     writes helm/sluice/values.schema.json and files/ranges.json
"""

import json
import re

from places import ROOT, gateway_says

SCHEMA = ROOT / "helm/sluice/values.schema.json"
RANGES = ROOT / "helm/sluice/files/ranges.json"
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
# What stands under definitions, as it is used in many places.
DURATION = {"$ref": "#/definitions/duration"}
SIZE = {"$ref": "#/definitions/size"}
NETWORK = {"anyOf": [{"$ref": "#/definitions/network"}, {"$ref": "#/definitions/address"}]}


def kind(allowed):
    """A schema for what the reference says after `Allowed:`."""
    if allowed.startswith('"off", or '):
        # A bare off is false to YAML, and the chart takes it for "off".
        return {"anyOf": [{"enum": ["off", False]}, kind(allowed.removeprefix('"off", or '))]}
    if allowed == '"auto", or true or false':
        return {"enum": ["auto", True, False]}
    if allowed == "true or false":
        return {"type": "boolean"}
    if match := re.match(r"a whole number from (\d+) to (\d+)", allowed):
        return {"type": "integer", "minimum": int(match[1]), "maximum": int(match[2])}
    if allowed.startswith("a duration"):
        return DURATION
    if allowed.startswith("a size"):
        return SIZE
    if allowed.startswith("a table with size, age"):
        return closed({"size": {"type": "integer", "minimum": 1}, "age": DURATION})
    if allowed.startswith("a list of networks"):
        return {"type": "array", "items": NETWORK}
    if allowed.startswith("a list of origins"):
        return {"type": "array", "items": {"$ref": "#/definitions/origin"}}
    if allowed.startswith("a list of URLs"):
        return {"type": "array", "items": url(allowed)}
    if allowed.startswith("a list"):
        return TEXTS
    if allowed.startswith(("a URL", "text that is a URL")):
        # None is "".
        return {"anyOf": [{"const": ""}, url(allowed)]}
    if allowed == "text that is not empty":
        return TEXT | {"minLength": 1}
    if allowed.startswith("one of "):
        return {"enum": allowed.removeprefix("one of ").split(", ")}
    if re.fullmatch(r'("[a-z-]+"(, | or )?)+', allowed):
        return {"enum": re.findall(r'"([a-z-]+)"', allowed)}
    known = (
        "text",
        "a text",
        "a rate",
        "the path of a file",
        "an IP address and a port",
        "a channel's name",
    )
    if allowed.startswith(known):
        return TEXT
    raise SystemExit(f"the reference says something new: Allowed: {allowed}")


def url(allowed):
    """What begins as one of the URLs that the reference names."""
    schemes = re.findall(r"([a-z+]+)://", allowed)
    if "rediss+…" in allowed:
        schemes += [scheme.replace("redis+", "rediss+") for scheme in schemes if scheme.startswith("redis+")]
    text = f"^({'|'.join(schemes)})://".replace("+", "\\+")
    # A host, and no user before it.
    return TEXT | {"pattern": text + (r"[^/?#@\s]+([/?#]|$)" if "without a password" in allowed else ".")}


def closed(properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


def from_reference(reference):
    """The tree of all keys. Sections come one after the other; what describes a list stands in comments."""
    tree, comment, rows = {}, [], None
    section = tree
    for line in [*reference.splitlines(), ""]:
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = {}
            tree[head[1]] = closed(section)
        elif head := re.fullmatch(r"#     \[\[([\w.]+)\]\]", line):
            rows = {}
            *parent, name = head[1].split(".")
            holder = tree[parent[0]]["properties"] if parent else tree
            holder[name] = {"type": "array", "items": closed(rows)}
        elif key := re.match(r"#(\w+) = ", line):
            section[key[1]] = kind(re.search(r"Allowed: (.*)\.$", " ".join(comment))[1])
        elif line in ("", "#"):
            if row := re.match(r"(\w+): .*Allowed: (.*)\.$", " ".join(comment)):
                rows[row[1]] = kind(row[2])
            comment = []
        elif line.startswith("# "):
            comment.append(line[2:])
    return closed(tree)


def ranges(reference):
    """The least and the most of each duration and size, by the setting's path."""
    found, section, comment = {}, "", ""
    for line in reference.splitlines():
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = head[1]
        elif key := re.match(r"#(\w+) = ", line):
            if span := re.search(r"Allowed: (?:\"off\", or )?a (?:duration|size) from (\S+) to (\S+)\.$", comment.strip()):
                found[f"{section}.{key[1]}"] = [span[1], span[2]]
            comment = ""
        else:
            comment += line.removeprefix("#")
    return found


def config_schema():
    return from_reference(gateway_says("--print-config"))


def as_text(value, indent=0):
    """JSON, with what fits on a line on one."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(line) + indent <= 110:
        return line
    inner = " " * (indent + 2)
    if isinstance(value, list):
        parts = [as_text(item, indent + 2) for item in value]
    else:
        parts = [f"{json.dumps(key)}: {as_text(item, indent + 2)}" for key, item in value.items()]
    first, last = ("[", "]") if isinstance(value, list) else ("{", "}")
    return f"{first}\n{inner}" + f",\n{inner}".join(parts) + f"\n{' ' * indent}{last}"


def with_config(schema):
    """The whole schema of the values, with that of `config` as it must be."""
    return schema | {"properties": schema["properties"] | {"config": config_schema()}}


if __name__ == "__main__":
    RANGES.write_text(as_text(ranges(gateway_says("--print-config"))) + "\n")
    SCHEMA.write_text(as_text(with_config(json.loads(SCHEMA.read_text()))) + "\n")
