"""Who may reach what, by the NetworkPolicy: what is allowed follows from the configuration, and nothing else is."""

from chart import Release, values
from places import ROOT


def egress(text):
    (policy,) = [item for item in Release(values(text)).all("NetworkPolicy") if item["metadata"]["name"] == "sluice"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    return [(sorted({port["port"] for port in rule["ports"]}), rule.get("to")) for rule in policy["spec"]["egress"]]


def case(name):
    return (ROOT / f"tests/deploy/values/{name}.yaml").read_text()


def test_the_ports_of_a_redis_of_ones_own_are_open():
    rules = egress(case("closed-network"))
    assert [ports for ports, _ in rules] == [[53], [6379, 26379, 26380], [4318]]
    assert all(to for _, to in rules), "each to somewhere"
    assert egress(case("redis-tls"))[1] == ([6379, 6380], None)
    assert egress(case("redis-url-secret"))[1] == ([6379, 6380], None)


def test_the_trial_redis_is_reached_and_reaches_nothing():
    release = Release(values("networkPolicy: { egress: { enabled: true } }"))
    (_, (ports, to)) = egress("networkPolicy: { egress: { enabled: true } }")
    redis = release.one("Deployment", "sluice-redis")["spec"]["template"]["metadata"]["labels"]
    assert ports == [6379] and to == [{"podSelector": {"matchLabels": redis}}]
    own = release.one("NetworkPolicy", "sluice-redis")["spec"]
    assert own["policyTypes"] == ["Ingress", "Egress"] and "egress" not in own
    gateway = release.gateway["spec"]["selector"]["matchLabels"]
    assert own["ingress"] == [{"ports": [{"port": "redis"}], "from": [{"podSelector": {"matchLabels": gateway}}]}]


def test_issuers_are_reached_at_their_ports():
    assert egress(case("issuer"))[-1] == ([8443], None)
    keys = "[{ alg: ES256, jwks_url: 'https://id.example.com/k' }, { alg: ES256, jwks_url: 'http://id/k' }]"
    given = f"config: {{ auth: {{ key: {keys} }} }}\nnetworkPolicy: {{ egress: {{ enabled: true }} }}"
    assert egress(given)[-1] == ([80, 443], None)


def test_the_collector_of_traces_is_reached_at_its_port():
    given = "config: { traces: { otlp: 'http://collector:4318' } }\nnetworkPolicy: { egress: { enabled: true } }"
    assert egress(given)[-1] == ([4318], None)


def test_the_test_pod_reaches_the_service_whoever_else_may():
    release = Release(values(case("closed-network")))
    labels = release.one("Pod", "sluice-test")["metadata"]["labels"]
    public, admin = release.one("NetworkPolicy")["spec"]["ingress"]
    assert any(
        peer["podSelector"]["matchLabels"].items() <= labels.items() for peer in public["from"] if "podSelector" in peer
    )
    assert not any(
        peer.get("podSelector", {}).get("matchLabels", {}).items() <= labels.items() for peer in admin["from"]
    )


def test_everybody_reaches_the_public_port_and_few_the_other(default):
    public, admin = default.one("NetworkPolicy")["spec"]["ingress"]
    assert public == {"ports": [{"port": "http"}]}
    assert admin["ports"] == [{"port": "admin"}] and admin["from"]
    nobody = Release(values("networkPolicy: { adminFrom: [] }")).one("NetworkPolicy")["spec"]["ingress"]
    assert nobody == [{"ports": [{"port": "http"}]}]
