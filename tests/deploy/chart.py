"""The chart, rendered by Helm's own engine; what it makes of values, laid out as a pod would see it."""

import base64
import re
import subprocess

import helm_python as helm
import yaml

from places import CHART, GATEWAY, clean_environment

NAME, NAMESPACE = "sluice", "demo"
MOUNT = "/etc/sluice"
COMPONENT = "app.kubernetes.io/component"


def values(text):
    """Values as Helm reads them from a file: by its own YAML, in which a bare off is false."""
    return helm.values_from_yaml(text)


def render(given=None, **options):
    """The manifests by their file, and the notes; an error that Helm says is raised."""
    with helm.Chart.load(CHART) as chart:
        return chart.render(given or {}, **({"name": NAME, "namespace": NAMESPACE} | options))


class Release:
    """What an installation would have."""

    def __init__(self, given=None, files=None):
        self.files = files or render(given)
        self.notes = self.files[f"{NAME}/templates/NOTES.txt"]
        texts = [text for name, text in sorted(self.files.items()) if not name.endswith("NOTES.txt")]
        self.objects = [item for text in texts for item in yaml.safe_load_all(text) if item]
        gateways = [
            item
            for item in self.all("Deployment")
            if item["spec"]["template"]["metadata"]["labels"][COMPONENT] == "gateway"
        ]
        (self.gateway,) = gateways
        self.name = self.gateway["metadata"]["name"]

    def all(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind, name=None):
        """The object of a kind and a name, which is the release's unless given."""
        name = name or self.name
        found = [item for item in self.all(kind) if item["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of kind {kind} with the name {name}"
        return found[0]

    @property
    def pod(self):
        return self.gateway["spec"]["template"]["spec"]

    @property
    def container(self):
        return self.pod["containers"][0]

    @property
    def toml(self):
        return self.one("ConfigMap")["data"]["sluice.toml"]

    def secret(self, name, key):
        """The bytes of a Secret that the chart makes, or None if it is one of the user's."""
        for item in self.all("Secret"):
            if item["metadata"]["name"] == name:
                return base64.b64decode(item["data"][key])
        return None

    def lay_out(self, folder, foreign):
        """Writes what is mounted at /etc/sluice into a folder, with paths to match; what is of the user's own Secrets
        `foreign(path)` says. Returns the path of the configuration."""
        volume = next(volume for volume in self.pod["volumes"] if volume["name"] == "settings")
        for source in volume["projected"]["sources"]:
            if "configMap" in source:
                data = self.one("ConfigMap", source["configMap"]["name"])["data"]
                for name, text in data.items():
                    (folder / name).write_text(text.replace(MOUNT, str(folder)))
                continue
            for item in source["secret"]["items"]:
                content = self.secret(source["secret"]["name"], item["key"])
                content = foreign(item["path"]) if content is None else content
                (folder / item["path"]).write_bytes(content)
        argument = self.container["args"][self.container["args"].index("--config") + 1]
        return argument.replace(MOUNT, str(folder))

    def environment(self):
        return clean_environment(
            **{entry["name"]: entry["value"] for entry in self.container["env"] if "value" in entry}
        )


def refusal(given, **options):
    """What Helm says to values that are refused; fails if they are not."""
    try:
        render(given, **options)
    except helm.HelmError as error:
        return str(error)
    raise AssertionError(f"not refused: {given}")


def complaints(environment, *arguments, **options):
    """What the gateway has to say against a configuration, warnings too."""
    said = subprocess.run(
        [GATEWAY, *arguments, "--check-config"], env=environment, capture_output=True, text=True, timeout=20, **options
    )
    assert (said.returncode == 0) == ("the configuration is good" in said.stdout)
    return said.stderr


def fenced(text, language):
    """The code blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
