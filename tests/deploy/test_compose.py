"""docker-compose.yml, read by Compose itself, and the files that it mounts."""

import json
import re
import subprocess
from pathlib import Path

import compose
import pytest
import yaml

from chart import complaints
from places import ROOT, clean_environment

# The package's own command exits with 0 whatever happens; this is the program that it starts.
COMPOSE = Path(compose.__file__).parent / "docker-compose"
GATEWAYS = ["gateway-1", "gateway-2", "gateway-3"]


@pytest.fixture(scope="module")
def project():
    said = subprocess.run(
        [COMPOSE, "--file", ROOT / "docker-compose.yml", "config", "--format", "json"],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert not said.stderr, said.stderr
    return json.loads(said.stdout)


def mounts(service):
    return {volume["target"]: Path(volume["source"]) for volume in service["volumes"] if volume["type"] == "bind"}


def test_compose_refuses_what_it_does_not_know(tmp_path):
    broken = tmp_path / "docker-compose.yml"
    broken.write_text((ROOT / "docker-compose.yml").read_text().replace("read_only:", "read_olny:"))
    said = subprocess.run([COMPOSE, "--file", broken, "config", "--quiet"], capture_output=True, text=True)
    assert said.returncode != 0 and "read_olny" in said.stderr


def test_all_parts_are_there(project):
    assert set(project["services"]) == {"redis", *GATEWAYS, "nginx", "prometheus", "grafana"}
    for name, service in project["services"].items():
        assert name in GATEWAYS or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name} has no exact version"


def test_what_is_mounted_is_there_and_cannot_be_written_to(project):
    for name, service in project["services"].items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), f"{name}: {volume['source']} is missing"
                assert volume["read_only"], f"{name} may write to {volume['source']}"


def test_it_is_open_to_this_machine_alone(project):
    published = {}
    for name, service in project["services"].items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", f"{name} is open to others"
            published[name] = port["published"]
    assert published == {"nginx": "8080", "prometheus": "9090", "grafana": "3000"}


def test_gateways_have_few_rights_and_time_to_leave(project):
    for name in GATEWAYS:
        service = project["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["stop_grace_period"] == "45s", "drain.delay + drain.window + 10 s"
        assert service["depends_on"]["redis"]["condition"] == "service_started"


def test_gateways_are_given_time_for_a_redis_that_reads_its_file(project):
    for name in GATEWAYS:
        assert project["services"][name]["healthcheck"]["start_period"] == "1m0s"


def test_streams_end_now_and_then_so_that_a_gateway_that_was_restarted_has_some_again(project):
    for name in GATEWAYS:
        assert project["services"][name]["environment"]["SLUICE_STREAM__MAX_AGE"] == "30m"


def test_the_gateway_takes_its_environment(project, tmp_path):
    settings = project["services"]["gateway-1"]["environment"]
    image = {"SLUICE_LISTEN": "0.0.0.0:8080", "SLUICE_ADMIN_LISTEN": "0.0.0.0:8081"}
    assert complaints(clean_environment(**image, **settings), cwd=tmp_path) == ""


def test_nginx_knows_every_gateway_and_takes_the_configuration(project, tmp_path):
    files = mounts(project["services"]["nginx"])
    assert files["/etc/nginx/nginx.conf"] == ROOT / "nginx/sluice.conf"
    replicas = files["/etc/nginx/replicas.conf"].read_text()
    assert re.findall(r"^server (\S+):8080 max_fails=0;$", replicas, re.MULTILINE) == GATEWAYS
    # Names are looked up, and these are Compose's.
    (tmp_path / "replicas.conf").write_text(re.sub(r"gateway-\d", "127.0.0.1", replicas))
    (tmp_path / "nginx.conf").write_text(
        files["/etc/nginx/nginx.conf"].read_text().replace("/var/log/nginx", str(tmp_path))
    )
    said = subprocess.run(
        ["nginx", "-t", "-q", "-c", tmp_path / "nginx.conf", "-g", f"pid {tmp_path}/nginx.pid;"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr


def test_prometheus_asks_every_gateway_and_has_the_rules_of_the_chart(project):
    files = mounts(project["services"]["prometheus"])
    config = yaml.safe_load(files["/etc/prometheus/prometheus.yml"].read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{name}:8081" for name in GATEWAYS]
    for path in config["rule_files"]:
        assert files[path] == ROOT / "helm/sluice/files/rules.yaml"


def test_grafana_finds_the_dashboard_of_the_chart_and_its_source(project):
    service = project["services"]["grafana"]
    files = mounts(service)
    provisioning = files["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/sluice.yml").read_text())["providers"]
    (path,) = [path for path in files if path.startswith(provider["options"]["path"])]
    assert files[path] == ROOT / "helm/sluice/files/dashboard.json"
    assert service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == path
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    # What panels name by its uid must be this one; a variable finds it by its type.
    named = set(re.findall(r'"datasource": *\{[^}]*"uid": *"([^"]+)"', files[path].read_text()))
    assert all(uid in (source["uid"], "grafana", "-- Grafana --") or uid.startswith("$") for uid in named), named
