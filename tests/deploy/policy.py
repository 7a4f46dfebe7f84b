"""What must be true of every manifest, whatever the values. Each check returns what is wrong, as text."""

import re

SCALE = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(duration):
    number, unit = re.fullmatch(r"([0-9.]+) *([a-zA-Z]+)", duration).groups()
    return float(number) * SCALE[unit.lower()]


def pods(release):
    """Each pod that would run, as (name, spec, labels)."""
    for item in release.objects:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item["spec"], item["metadata"]["labels"]
        elif item["kind"] == "Deployment":
            template = item["spec"]["template"]
            yield item["metadata"]["name"], template["spec"], template["metadata"]["labels"]


def restricted(release):
    """The "restricted" standard of Kubernetes, and what we ask beside it."""
    for name, pod, _ in pods(release):
        security = pod["securityContext"]
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        for key in ("automountServiceAccountToken", "enableServiceLinks"):
            if pod.get(key) is not False:
                yield f"{name}: {key} is not false"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                yield f"{name} has {key}"
        for container in pod["containers"]:
            security = container["securityContext"]
            if security.get("allowPrivilegeEscalation") is not False or not security.get("readOnlyRootFilesystem"):
                yield f"{name} may gain rights or write to its image"
            if security.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name} has capabilities"
            resources = container["resources"]
            if "memory" not in resources["limits"]:
                yield f"{name} has no limit of memory"
            if (
                not container["image"].rpartition(":")[2]
                or ":" not in container["image"]
                or container["image"].endswith(":latest")
            ):
                yield f"{name} runs an image of no certain version: {container['image']}"


def probed(release):
    """Probes on the admin port; liveness that does not ask for Redis."""
    container = release.container
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    for name, variable in (("http", "SLUICE_LISTEN"), ("admin", "SLUICE_ADMIN_LISTEN")):
        if environment[variable].rpartition(":")[2] != str(ports[name]):
            yield f"the port {name} is not the one of {variable}"
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if container[probe]["httpGet"] != {"path": path, "port": "admin"}:
            yield f"{probe} asks {container[probe]['httpGet']}"


def leaves_in_time(release, config):
    """Grace against drain, by the configuration that the gateway would read."""
    deployment, pod = release.one("Deployment")["spec"], release.pod
    drain = config.get("drain", {})
    delay, window = seconds(drain.get("delay", "5s")), seconds(drain.get("window", "30s"))
    sleep = release.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if pod["terminationGracePeriodSeconds"] < sleep + delay + window + 10:
        yield f"grace of {pod['terminationGracePeriodSeconds']} s for {sleep} + {delay} + {window} + 10 s"
    if deployment["progressDeadlineSeconds"] <= deployment["minReadySeconds"]:
        yield "progressDeadlineSeconds is not more than minReadySeconds, which Kubernetes refuses"
    for scaler in release.all("HorizontalPodAutoscaler"):
        down = scaler["spec"]["behavior"]["scaleDown"]
        if len(down["policies"]) != 1 or down["policies"][0]["value"] != 1:
            yield "more than one replica may leave at a time"
        if down["policies"][0]["periodSeconds"] < min(delay + window, 1800):
            yield "the next replica leaves while one drains"


def rolls(release):
    """One more, never one fewer; without a Redis, never two at a time."""
    deployment = release.one("Deployment")["spec"]
    config = release.toml
    has_redis = re.search(r"^(url|url_file|sentinels|cluster) = ", config, re.MULTILINE)
    expected = (
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        if has_redis
        else {"type": "Recreate"}
    )
    if deployment["strategy"] != expected:
        yield f"the strategy is {deployment['strategy']}"
    if not has_redis and (deployment.get("replicas") != 1 or release.all("HorizontalPodAutoscaler")):
        yield "several replicas without a Redis"
    if "checksum/config" not in release.one("Deployment")["spec"]["template"]["metadata"]["annotations"]:
        yield "another configuration would not take other pods"
    for budget in release.all("PodDisruptionBudget"):
        if budget["spec"]["maxUnavailable"] in (0, "0%"):
            yield "the budget stops nodes from being drained"


def selected(release):
    """Every selector finds the pods that it is for, and no others; what is routed is the public port alone."""
    labels = {name: found for name, _, found in pods(release)}

    def found_by(selector):
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for item in release.all("Service"):
        name = item["metadata"]["name"]
        expected = name.removesuffix("-admin")
        if found_by(item["spec"]["selector"]) != {expected}:
            yield f"the Service {name} selects {found_by(item['spec']['selector'])}"
        if not name.endswith("-admin") and any(port["targetPort"] == "admin" for port in item["spec"]["ports"]):
            yield f"the Service {name} has the admin port"
        if name.endswith("-admin") and item["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield "the admin port is for the outside"
    for kind in ("Deployment", "PodDisruptionBudget"):
        for item in release.all(kind):
            if found_by(item["spec"]["selector"]["matchLabels"]) != {item["metadata"]["name"]}:
                yield f"the {kind} {item['metadata']['name']} selects others"
    for policy in release.all("NetworkPolicy"):
        if found_by(policy["spec"]["podSelector"]["matchLabels"]) != {policy["metadata"]["name"]}:
            yield f"the NetworkPolicy {policy['metadata']['name']} selects others"
        for rule in policy["spec"].get("ingress", []):
            if any(port["port"] == "admin" for port in rule["ports"]) and not rule.get("from"):
                yield "anybody may reach the admin port"
    for monitor in release.all("ServiceMonitor"):
        services = [
            item
            for item in release.all("Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()
        ]
        ports = [port["name"] for item in services for port in item["spec"]["ports"]]
        if ports != [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]]:
            yield f"the ServiceMonitor finds {ports}"


def routed(release):
    """What streams need of an Ingress and an HTTPRoute, and that both lead to the public Service."""
    service = release.one("Service")
    for item in release.all("Ingress"):
        for rule in item["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                if path["backend"]["service"] != {"name": service["metadata"]["name"], "port": {"name": "http"}}:
                    yield f"the Ingress leads to {path['backend']}"
        notes = {
            name.rpartition("/")[2]: value
            for name, value in item["metadata"].get("annotations", {}).items()
            if name.startswith("nginx")
        }
        if notes and notes.get("proxy-buffering") != "off":
            yield "nginx would buffer streams"
        if notes and int(notes.get("proxy-read-timeout", 60)) <= 20:
            yield "nginx would cut streams"
    for item in release.all("HTTPRoute"):
        if item["apiVersion"] != "gateway.networking.k8s.io/v1" or not item["spec"]["parentRefs"]:
            yield "the HTTPRoute belongs to no Gateway"
        for rule in item["spec"]["rules"]:
            if rule.get("timeouts", {}).get("request") != "0s":
                yield "the Gateway may cut streams"
            if not 1 <= len(rule["matches"]) <= 64:
                yield "an HTTPRoute takes 1 to 64 matches"
            if rule["backendRefs"] != [
                {"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}
            ]:
                yield f"the HTTPRoute leads to {rule['backendRefs']}"


def custom(release):
    """The kinds of the Prometheus operator, of which no schema is at hand: what their definitions ask for."""
    for item in release.all("ServiceMonitor") + release.all("PrometheusRule"):
        if item["apiVersion"] != "monitoring.coreos.com/v1":
            yield f"{item['kind']} of {item['apiVersion']}"
    for item in release.all("ServiceMonitor"):
        for endpoint in item["spec"]["endpoints"]:
            if set(endpoint) - {"port", "path", "interval", "scrapeTimeout"} or not re.fullmatch(
                r"\d+(ms|[smhd])", endpoint["interval"]
            ):
                yield f"an endpoint {endpoint}"
    for item in release.all("PrometheusRule"):
        for group in item["spec"]["groups"]:
            if set(group) - {"name", "interval", "rules", "limit", "labels"} or not group["rules"]:
                yield f"a group of rules {group.get('name')}"
            for rule in group["rules"]:
                if ("alert" in rule) == ("record" in rule) or "expr" not in rule:
                    yield f"a rule {rule}"


def mounted(release):
    """No secret in a ConfigMap, and none in the environment but by reference; files where the configuration says."""
    for item in release.all("ConfigMap"):
        for key, text in item["data"].items():
            if key.endswith(".toml") and re.search(
                r"^(password|sentinel_password|secret|key) = \"(?!/)", text, re.MULTILINE
            ):
                yield f"a secret stands in {key}"
    paths = set()
    for volume in release.pod["volumes"]:
        if volume["name"] == "settings":
            for source in volume["projected"]["sources"]:
                new = {entry["path"] for entry in source["secret"]["items"]} if "secret" in source else {"sluice.toml"}
                if paths & new:
                    yield f"two files of one name: {paths & new}"
                paths |= new
    named = set(re.findall(r'"/etc/sluice/([^"]+)"', release.toml))
    if named != paths - {"sluice.toml"}:
        yield f"the configuration names {named}, and there are {paths}"


def wrong(release, config):
    """Everything that is wrong."""
    checks = (restricted, probed, rolls, selected, routed, custom, mounted)
    return [text for check in checks for text in check(release)] + list(leaves_in_time(release, config))
