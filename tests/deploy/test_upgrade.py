"""An upgrade goes on with what is there, generated Secrets and the number of replicas: Helm looks for them, at an address
that answers as an API server does about these."""

import contextlib
import http.server
import json
import threading

import helm_python as helm
import pytest
import yaml

from chart import NAME, NAMESPACE, Release
from places import CHART


class Cluster(http.server.BaseHTTPRequestHandler):
    """Discovery of two groups, and Secrets and Deployments by their name."""

    secrets: dict = {}
    deployments: dict = {}
    asked: list = []

    def do_GET(self):
        self.asked.append(self.path)
        kinds = []
        for name, kind in (("secrets", "Secret"), ("deployments", "Deployment")):
            kinds.append({"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]})
        groups = {"/api/v1": self.secrets, "/apis/apps/v1": self.deployments}
        known = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": kinds[:1]},
            "/apis/apps/v1": {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": kinds[1:]},
            "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        }
        for (group, objects), kind in zip(groups.items(), kinds, strict=True):
            where = f"{group}/namespaces/{NAMESPACE}/{kind['name']}/"
            known |= {where + name: found for name, found in objects.items()}
        found = known.get(self.path.partition("?")[0])
        absent = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(found or absent).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    monkeypatch.setattr(Cluster, "secrets", {})
    monkeypatch.setattr(Cluster, "deployments", {})
    monkeypatch.setattr(Cluster, "asked", [])
    # Helm keeps what it discovered there.
    monkeypatch.setenv("HOME", str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": {}}],
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": NAMESPACE}}],
    }  # fmt: skip
    with contextlib.closing(helm.Config(kubeconfig_content=yaml.safe_dump(kubeconfig), namespace=NAMESPACE)) as config:
        yield config
    server.shutdown()
    server.server_close()


def render(config, given=None, **options):
    with helm.Chart.load(CHART) as chart:
        return Release(files=config.render(chart, given or {}, name=NAME, namespace=NAMESPACE, **options))


def store(release):
    """What an installation would leave in the cluster."""
    Cluster.secrets = {item["metadata"]["name"]: item for item in release.all("Secret")}


MADE = [("sluice-signing-key", "signing.key"), ("sluice-trial-redis", "password")]


@pytest.mark.parametrize("name, key", MADE)
def test_an_upgrade_goes_on_with_the_secrets_that_are_there(cluster, name, key):
    first = render(cluster, is_install=True)
    assert any(path.endswith(name) for path in Cluster.asked), "looked for it"
    store(first)
    second = render(cluster, {"config": {"history": {"size": 7}}}, is_upgrade=True)
    assert second.secret(name, key) == first.secret(name, key)
    # The comparison is worth something: with nothing there it is another.
    Cluster.secrets = {}
    assert render(cluster).secret(name, key) != first.secret(name, key)


def test_a_secret_without_the_key_is_completed(cluster):
    release = render(cluster)
    store(release)
    del Cluster.secrets["sluice-signing-key"]["data"]
    assert len(render(cluster).secret("sluice-signing-key", "signing.key")) == 64


def test_autoscaling_is_switched_on_with_as_many_replicas_as_there_are(cluster):
    scaled = {"autoscaling": {"enabled": True}}
    assert "replicas" not in render(cluster, scaled, is_install=True).gateway["spec"], "the HPA brings the first"
    Cluster.deployments = {NAME: render(cluster, {"replicaCount": 9}).gateway}
    assert render(cluster, scaled, is_upgrade=True).gateway["spec"]["replicas"] == 9
    # And without it, what the values say.
    assert render(cluster, {"replicaCount": 4}, is_upgrade=True).gateway["spec"]["replicas"] == 4


def test_the_signing_key_outlives_the_release(default):
    assert default.one("Secret", "sluice-signing-key")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
