"""Values that the chart does not know, and those that do not go together, are refused, and it is said why."""

import pytest

from chart import Release, refusal, render, values
from policy import wrong

REFUSED = {
    # Unknown, or of the wrong kind: values.schema.json.
    "replicas: 3": "replicas",
    "replicaCount: two": "replicaCount",
    "replicaCount: 0": "replicaCount",
    "ingress: { host: x }": "host",
    "config: { redis: { ulr: x } }": "ulr",
    "config: { drain: { delay: 5 } }": "delay",
    "config: { drain: { delay: 5 parsecs } }": "delay",
    "config: { channel: [{ match: x, hystory: off }] }": "hystory",
    "config: { auth: { key: [{ alg: none }] } }": "alg",
    "resources: { limits: { memory: null } }": "memory",
    "podDisruptionBudget: { maxUnavailable: 0 }": "maxUnavailable",
    "podAnnotations: { a: 1 }": "podAnnotations",
    "image: { digest: latest }": "digest",
    # What the gateway would not take, by its reference.
    "config: { redis: { url: banana } }": "/config/redis/url",
    "config: { redis: { url: 'http://r' } }": "/config/redis/url",
    "config: { redis: { url: 'rediss+://r' } }": "/config/redis/url",
    "config: { redis: { sentinels: ['s1:26379'], master: main } }": "/config/redis/sentinels/0",
    "config: { redis: { cluster: ['redis+cluster://r'] } }": "/config/redis/cluster/0",
    "config: { redis: { sentinels: ['redis://s'], master: '' } }": "/config/redis/master",
    "config: { traces: { otlp: collector } }": "/config/traces/otlp",
    "config: { traces: { otlp: 'https://user:pw@collector' } }": "/config/traces/otlp",
    "config: { proxy: { trusted: [nginx] } }": "/config/proxy/trusted/0",
    "config: { cors: { origins: [app.example.com] } }": "/config/cors/origins/0",
    "config: { drain: { window: 61m } }": "config.drain.window is 61m, and the gateway takes 0s to 1h",
    "config: { stream: { heartbeat: 999ms } }": "config.stream.heartbeat is 999ms, and the gateway takes 1s to 10m",
    "config: { stream: { max_age: 31d } }": "config.stream.max_age is 31d, and the gateway takes 1s to 30d",
    "config: { outbox: { max_bytes: 4095 } }": "config.outbox.max_bytes is 4095, and the gateway takes 4KiB to 64MiB",
    "config: { limits: { body_bytes: 0 } }": "config.limits.body_bytes is 0, and the gateway takes 1MiB to 1TiB",
    "config: { http: { max_header_bytes: 2MB } }": "config.http.max_header_bytes is 2MB, and the gateway takes 8KiB to 1MiB",
    "autoscaling: { enabled: true, maxAge: 31d }": "autoscaling.maxAge is 31d, and the gateway takes 1s to 30d",
    "autoscaling: { enabled: true, maxAge: 1s }": "every client would reconnect that often",
    # Names and addresses that Kubernetes would not take.
    "nameOverride: My_Name": "nameOverride",
    "fullnameOverride: 1st": "fullnameOverride",
    "fullnameOverride: events.eu": "fullnameOverride",
    "image: { tag: 'v 1' }": "tag",
    "image: { repository: 'registry.example.com/sluice:1.0' }": "repository",
    "image: { repository: '' }": "repository",
    "trialRedis: { image: 'redis 7' }": "image",
    "ingress: { enabled: true, hosts: ['a b.example'] }": "/ingress/hosts/0",
    "ingress: { enabled: true, hosts: ['https://a.example'] }": "/ingress/hosts/0",
    "ingress: { enabled: true, hosts: [a.example], tls: [{ secretName: x y }] }": "secretName",
    "httpRoute: { enabled: true, parentRefs: [{ name: g }], hostnames: ['a.example/events'] }": "/httpRoute/hostnames/0",
    "podLabels: { team: a b }": "/podLabels/team",
    "podLabels: { 'a b': x }": "/podLabels",
    "podAnnotations: { 'a b': x }": "/podAnnotations",
    "serviceAccount: { name: My_Account }": "/serviceAccount/name",
    "signingKey: { existingSecret: { name: my_keys } }": "/signingKey/existingSecret/name",
    "apiKeys: [{ name: a, secret: { name: x, key: a/b } }]": "/apiKeys/0/secret/key",
    "service: { type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0] }": "loadBalancerSourceRanges",
    "networkPolicy: { publicFrom: [{ ipBlock: { cidr: 10.0.0.256/8 } }] }": "cidr",
    "networkPolicy: { adminFrom: [{ ipBlock: { cidr: 10.0.0.0/33 } }] }": "cidr",
    "networkPolicy: { publicFrom: [{ ipBlock: { cidr: 'fd00::/129' } }] }": "cidr",
    "networkPolicy: { publicFrom: [{ ipBlock: { cidr: 10.0.0.0/8, except: [office] } }] }": "except",
    "extraVolumes: [{ name: settings, emptyDir: {} }]": "the volume of the chart's own",
    "extraVolumes: [{ name: My_Files, emptyDir: {} }]": "/extraVolumes/0/name",
    "extraVolumes: [{ name: x, emptyDir: {} }, { name: x, emptyDir: {} }]": "extraVolumes has x twice",
    "extraVolumeMounts: [{ name: x, mountPath: /x }]": "add it to extraVolumes",
    "{ extraVolumes: [{ name: x, emptyDir: {} }], extraVolumeMounts: [{ name: x, mountPath: /x }, { name: x, mountPath: /x }] }": "/x twice",
    # Secrets.
    "config: { redis: { url: 'redis://r', password: x } }": "redis.passwordSecret",
    "config: { redis: { url: 'redis+sentinel://r/m', sentinel_password: x } }": "redis.sentinelPasswordSecret",
    "config: { redis: { url: 'redis://user:pw@r:6379' } }": "redis.urlSecret",
    "config: { redis: { url: 'redis+sentinel://s/m?sentinel_password=x' } }": "redis.urlSecret",
    "config: { redis: { cluster: ['redis://a', 'redis://:pw@r:6379'] } }": "config.redis.cluster has a password",
    "config: { auth: { key: [{ alg: HS256, secret: x }] } }": "signingKey.existingSecret",
    "config: { auth: { api_key: [{ name: a, key: x }] } }": "apiKeys",
    # What the chart sets itself.
    "config: { listen: '0.0.0.0:9000' }": "bindAddress",
    "config: { admin_listen: '0.0.0.0:9000' }": "bindAddress",
    "extraEnv: [{ name: SLUICE_DRAIN__WINDOW, value: 5m }]": "settings of the gateway go into config",
    "extraVolumeMounts: [{ name: x, mountPath: /etc/sluice/keys }]": "nothing can be mounted in it",
    "{ tls: { existingSecret: x }, config: { tls: { certificate: /x.crt } } }": "config.tls.certificate is set",
    "{ redis: { passwordSecret: { name: x } }, config: { redis: { url: 'redis://r', password_file: /pw } } }": "config.redis.password_file is set",
    "podLabels: { app.kubernetes.io/name: x }": "podLabels sets app.kubernetes.io/name",
    "podLabels: { app.kubernetes.io/instance: x }": "podLabels sets app.kubernetes.io/instance",
    "podLabels: { app.kubernetes.io/component: x }": "podLabels sets app.kubernetes.io/component",
    "podAnnotations: { checksum/config: x }": "podAnnotations sets checksum/config",
    "serviceMonitor: { enabled: true, labels: { app.kubernetes.io/name: x } }": "serviceMonitor.labels sets app.kubernetes.io/name",
    "prometheusRule: { enabled: true, labels: { helm.sh/chart: x } }": "prometheusRule.labels sets helm.sh/chart",
    "dashboard: { enabled: true, labels: { app.kubernetes.io/part-of: x } }": "dashboard.labels sets app.kubernetes.io/part-of",
    # Redis.
    "{ trialRedis: { enabled: true }, config: { redis: { url: 'redis://r' } } }": "trialRedis.enabled is true",
    "config: { redis: { wait_replicas: 1 } }": "the trial Redis has no replica",
    "{ trialRedis: { enabled: false }, replicaCount: 1, config: { redis: { wait_replicas: 1 } } }": "and there is no Redis",
    "trialRedis: { enabled: false }": "several replicas without a Redis",
    "{ trialRedis: { enabled: false }, replicaCount: 1, autoscaling: { enabled: true } }": "several replicas without a Redis",
    "config: { redis: { url: 'redis://r', cluster: ['redis://c'] } }": "name a Redis each",
    "{ redis: { urlSecret: { name: x } }, config: { redis: { url: 'redis://r' } } }": "name a Redis each",
    "redis: { passwordSecret: { name: x } }": "is for a Redis of your own",
    "{ redis: { sentinelPasswordSecret: { name: x } }, config: { redis: { url: 'redis://r' } } }": "has no sentinels",
    "{ redis: { caSecret: { name: x } }, config: { redis: { url: 'redis://r' } } }": "begins with rediss",
    # Keys.
    "signingKey: { generate: true, existingSecret: { name: x } }": "signingKey.generate is true",
    "signingKey: { generate: false }": "there is no key",
    "{ signingKey: { generate: true }, config: { auth: { open: true } } }": "config.auth.open is true, and there are keys",
    "{ signingKey: { issuer: x }, config: { auth: { open: true } } }": "signingKey.issuer",
    "apiKeys: [{ name: a, secret: { name: x, key: a } }, { name: a, secret: { name: x, key: b } }]": "two keys named a",
    "{ apiKeys: [{ name: a, secret: { name: x, key: a } }], config: { auth: { api_key: [{ name: a, key_file: /x }] } } }": "two keys named a",
    "tls: { clientCaSecret: { name: x } }": "there is no TLS",
    # Pods and their number.
    "terminationGracePeriodSeconds: 49": "a replica needs 50",
    "{ terminationGracePeriodSeconds: 54, config: { drain: { delay: 0s, window: 35s } } }": "a replica needs 55",
    "resources: { limits: { memory: 1Gi } }": "may take 1117Mi by its configuration",
    "resources: { limits: { memory: 1170000000 } }": "resources.limits.memory is 1170000000, and the gateway may take 1117Mi by its configuration",
    "config: { limits: { connections: 105000 } }": "may take 1537Mi by its configuration",
    "config: { outbox: { total_bytes: 0.7gib } }": "would be killed",
    "config: { limits: { body_bytes: 1000000000 } }": "would be killed",
    "{ trialRedis: { enabled: false }, replicaCount: 1, config: { memory: { max_bytes: 512MB } } }": "would be killed",
    "resources: { limits: { memory: 2000m } }": "2000m, which to Kubernetes are thousandths of a byte",
    "resources: { limits: { memory: 1536m } }": "write 1536Mi",
    "resources: { limits: { memory: 2Gib } }": "resources.limits.memory is 2Gib, which is no quantity of memory",
    "resources: { requests: { memory: lots } }": "resources.requests.memory is lots, which is no quantity of memory",
    "resources: { requests: { memory: 1537Mi } }": "resources.requests.memory is 1537Mi, more than resources.limits.memory, 1536Mi",
    "resources: { limits: { memory: 1.5G }, requests: { memory: 1500000001 } }": "more than resources.limits.memory, 1.5G",
    "resources: { limits: { cpu: 0 } }": "resources.limits.cpu is 0, which is no limit",
    "resources: { limits: { cpu: 0m } }": "resources.limits.cpu is 0, which is no limit",
    "resources: { limits: { cpu: two } }": "resources.limits.cpu is two, which is no quantity of CPU",
    "resources: { requests: { cpu: 2001m } }": "resources.requests.cpu is 2001m, more than resources.limits.cpu, 2",
    "resources: { requests: { cpu: 1 }, limits: { cpu: 0.5 } }": "resources.requests.cpu is 1, more than resources.limits.cpu, 0.5",
    "trialRedis: { resources: { limits: { memory: 191Mi } } }": "192Mi or more",
    "trialRedis: { resources: { limits: { memory: 256m } } }": "trialRedis.resources.limits.memory is 256m",
    "trialRedis: { resources: { requests: { cpu: 1500m } } }": "more than trialRedis.resources.limits.cpu, 1",
    "serviceAccount: { create: false, annotations: { a: b } }": "serviceAccount.annotations",
    "autoscaling: { enabled: true, minReplicas: 5, maxReplicas: 4 }": "less than minReplicas",
    "autoscaling: { enabled: true, minReplicas: 1 }": "allowSingleReplica",
    "autoscaling: { enabled: true, connections: 0, cpu: 0 }": "nothing to scale by",
    "autoscaling: { enabled: true, connections: 19000 }": "it would never scale up",
    "{ autoscaling: { enabled: true }, resources: { requests: { cpu: null } } }": "a share of resources.requests.cpu",
    "{ autoscaling: { enabled: true }, resources: { requests: { cpu: 0m } } }": "a share of resources.requests.cpu",
    # The network.
    "ingress: { enabled: true }": "ingress.hosts is empty",
    "ingress: { enabled: true, hosts: [a.example], tls: [{ secretName: x, hosts: [b.example] }] }": "b.example",
    "{ ingress: { enabled: true, hosts: [a.example] }, config: { proxy: { protocol: true } } }": "sends no PROXY headers",
    "{ ingress: { enabled: true, hosts: [a.example] }, config: { stream: { heartbeat: 2m } } }": "it would be cut",
    "httpRoute: { enabled: true }": "names no Gateway",
    "{ httpRoute: { enabled: true, parentRefs: [{ name: g }] }, config: { proxy: { protocol: true } } }": "sends no PROXY headers",
    "service: { loadBalancerClass: x }": "service.type LoadBalancer",
    "service: { externalTrafficPolicy: Local }": "service.type NodePort or LoadBalancer",
    "{ serviceMonitor: { enabled: true }, adminService: { enabled: false } }": "adminService.enabled is false",
    "{ serviceMonitor: { enabled: true }, networkPolicy: { adminFrom: [] } }": "lets nobody in",
    "serviceMonitor: { interval: 5s }": "longer than serviceMonitor.interval",
    "networkPolicy: { enabled: false, egress: { enabled: true } }": "networkPolicy.enabled is false",
    "{ networkPolicy: { egress: { enabled: true, redisPorts: [] } }, redis: { urlSecret: { name: x } } }": "list those of Redis",
}


@pytest.mark.parametrize("text, said", REFUSED.items(), ids=REFUSED.keys())
def test_refused(text, said):
    assert said in refusal(values(text))


def test_everything_is_said_at_once():
    said = refusal(values("{ terminationGracePeriodSeconds: 1, ingress: { enabled: true }, config: { listen: x } }"))
    assert said.count("\n- ") == 3, said


def test_what_fits_is_not_refused():
    small = "{ outbox: { total_bytes: 32MiB }, hub: { tail_total_bytes: 64MB }, limits: { connections: 2000, replay_bytes: 33554432, body_bytes: 32 MiB } }"
    Release(values(f"{{ resources: {{ requests: {{ memory: 64Mi }}, limits: {{ memory: 172Mi }} }}, config: {small} }}"))
    assert "may take 167Mi" in refusal(values(f"{{ resources: {{ limits: {{ memory: 166Mi }} }}, config: {small} }}"))
    # The chart's version is no label of pods, so that a new one does not roll them.
    Release(values("{ podLabels: { app.kubernetes.io/part-of: x, team: payments }, podAnnotations: { checksum/other: x } }"))
    for repository in ("localhost:5000/sluice", "ghcr.io/a-b/c__d/sluice", "Registry.example.com/x/sluice.eu"):
        Release({"image": {"repository": repository, "tag": "v1.0_x-2"}})
    for cidr in ("0.0.0.0/0", "10.0.0.0/8", "192.168.250.255/32", "fd00::/8", "::/0", "2001:db8::ffff:1.2.3.4/128"):
        Release({"networkPolicy": {"publicFrom": [{"ipBlock": {"cidr": cidr}}]}})
    Release({"ingress": {"enabled": True, "hosts": ["*.example.com", "events-1.example.com", "localhost"]}})
    for scheme in ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"):
        Release({"config": {"redis": {"url": f"{scheme}://a,b/name"}}})
    Release(values("config: { proxy: { trusted: [10.0.0.0/8, 10.0.0.1, '::1', 'fd00::/8'] }, traces: { otlp: '' } }"))
    Release(values("config: { traces: { otlp: 'http://collector:4318/v1/traces' } }"))
    Release(values("config: { cors: { origins: ['*', 'http://[::1]:8080', 'app://x', 'https://a.example:8443'] } }"))
    Release(values("{ autoscaling: { enabled: true, maxAge: 1m }, config: { drain: { window: 60m } } }"))
    # One's own beats it, whatever it is.
    Release(values("{ autoscaling: { enabled: true, maxAge: 1s }, config: { stream: { max_age: 1s } } }"))
    # As little as may be, and as Kubernetes reads it: cores as numbers, bytes without a unit, no limit of CPU.
    Release(values("resources: { limits: { cpu: 0.25, memory: 1172000000 }, requests: { cpu: 250m, memory: 1.09Gi } }"))
    Release(values("resources: { limits: { cpu: null }, requests: { cpu: 0 } }"))
    Release(values("trialRedis: { resources: { limits: { memory: 192Mi } } }"))
    Release(values("{ networkPolicy: { egress: { enabled: true, redisPorts: [] } }, config: { redis: { url: 'redis://r:6380' } } }"))
    # What is not there is not looked at.
    Release(values("{ trialRedis: { resources: { limits: { memory: 1Mi } } }, config: { redis: { url: 'redis://r' } } }"))
    # Without a Redis the embedded broker takes some; with one it does not count.
    Release(values("config: { memory: { max_bytes: 8GiB } }"))


def test_a_release_of_a_long_name_has_names_that_kubernetes_takes():
    # 53 characters are the most that Helm allows; of a Service's name 63 are.
    release = Release({"fullnameOverride": "a" * 63, "autoscaling": {"enabled": True}})
    assert max(len(item["metadata"]["name"]) for item in release.objects) <= 63
    assert wrong(release, {}) == []


@pytest.mark.parametrize("name", ["1st", "events.eu"])
def test_a_release_of_a_name_that_no_service_may_have_is_told_what_to_do(name):
    # Helm takes these for releases.
    assert "set fullnameOverride" in refusal({}, name=name)
    assert render({"fullnameOverride": "events"}, name=name)
