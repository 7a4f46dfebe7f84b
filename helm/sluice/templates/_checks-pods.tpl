{{/* What is refused about pods, their number and their network. Each check prints a line for each mistake. */}}

{{- define "sluice.check-pods" -}}
{{- $needed := include "sluice.grace-needed" . | int64 }}
{{- if lt (include "sluice.grace" . | int64) $needed }}
- terminationGracePeriodSeconds is {{ .Values.terminationGracePeriodSeconds }}, and a replica needs {{ $needed }}: config.drain.delay + config.drain.window + 10 s, and the sleep of preStop. Streams would be cut
{{- end }}
{{- if and .Values.serviceAccount.annotations (not .Values.serviceAccount.create) }}
- serviceAccount.annotations are for a service account that serviceAccount.create makes
{{- end }}
{{- end }}

{{- define "sluice.check-scaling" -}}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if lt (int .maxReplicas) (int .minReplicas) }}
- autoscaling.maxReplicas is {{ .maxReplicas }}, less than minReplicas, {{ .minReplicas }}
{{- end }}
{{- if and (lt (int .minReplicas) 2) (not .allowSingleReplica) }}
- autoscaling.minReplicas is 1: while that one moves there is none. Set it to 2 or more, or autoscaling.allowSingleReplica to true
{{- end }}
{{- if not (or .connections .cpu) }}
- autoscaling.connections and autoscaling.cpu are both 0: there is nothing to scale by
{{- end }}
{{- $ageless := or (has (toString .maxAge) (list "off" "false")) (hasKey ($.Values.config.stream | default dict) "max_age") }}
{{- if and (not $ageless) (lt (include "sluice.ms" .maxAge | int64) 60000) }}
- autoscaling.maxAge is {{ .maxAge }}: every client would reconnect that often, and 1m or more is what spreads streams. Set it so, or to off
{{- end }}
{{- $limit := dig "limits" "connections" 19000 $.Values.config }}
{{- if ge (int .connections) (int $limit) }}
- autoscaling.connections is {{ .connections }}, and a replica refuses streams beyond config.limits.connections, {{ int $limit }}: it would never scale up
{{- end }}
{{- $asked := dig "requests" "cpu" "" $.Values.resources }}
{{- if and .cpu (or (not $asked) (eq (include "sluice.millicores" $asked) "0")) }}
- autoscaling.cpu is a share of resources.requests.cpu, which is not set
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.check-network" -}}
{{- $proxy := dig "proxy" "protocol" false .Values.config }}
{{- $heartbeat := include "sluice.ms" (dig "stream" "heartbeat" "20s" .Values.config) | int64 }}
{{- with .Values.ingress }}
{{- if .enabled }}
{{- if not .hosts }}
- ingress.enabled is true, and ingress.hosts is empty
{{- end }}
{{- range $entry := .tls }}
{{- range $entry.hosts }}
{{- if not (has . $.Values.ingress.hosts) }}
- ingress.tls is for {{ . }}, which is not among ingress.hosts
{{- end }}
{{- end }}
{{- end }}
{{- if $proxy }}
- config.proxy.protocol is true, and an Ingress sends no PROXY headers to Services: leave one of them out
{{- end }}
{{- $timeout := get (.annotations | default dict) "nginx.ingress.kubernetes.io/proxy-read-timeout" }}
{{- if and $timeout (le (mul (int64 $timeout) 1000) $heartbeat) }}
- the Ingress' proxy-read-timeout is {{ $timeout }} s, and a stream may be silent for config.stream.heartbeat: it would be cut
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.httpRoute }}
{{- if .enabled }}
{{- if not .parentRefs }}
- httpRoute.enabled is true, and httpRoute.parentRefs names no Gateway
{{- end }}
{{- if $proxy }}
- config.proxy.protocol is true, and a Gateway sends no PROXY headers to Services: leave one of them out
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.service }}
{{- if ne .type "LoadBalancer" }}
{{- if or .loadBalancerClass .loadBalancerSourceRanges }}
- service.loadBalancerClass and service.loadBalancerSourceRanges are for service.type LoadBalancer
{{- end }}
{{- end }}
{{- if and (eq .type "ClusterIP") (ne .externalTrafficPolicy "Cluster") }}
- service.externalTrafficPolicy is for service.type NodePort or LoadBalancer
{{- end }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.adminService.enabled) }}
- serviceMonitor.enabled is true, and adminService.enabled is false: Prometheus finds the replicas by that Service
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.adminFrom) }}
- serviceMonitor.enabled is true, and networkPolicy.adminFrom lets nobody in: name Prometheus there
{{- end }}
{{- $interval := include "sluice.ms" .Values.serviceMonitor.interval | int64 }}
{{- if gt (include "sluice.ms" .Values.serviceMonitor.scrapeTimeout | int64) $interval }}
- serviceMonitor.scrapeTimeout is longer than serviceMonitor.interval
{{- end }}
{{- if and .Values.networkPolicy.egress.enabled (not .Values.networkPolicy.enabled) }}
- networkPolicy.egress.enabled is true, and networkPolicy.enabled is false
{{- end }}
{{- if and .Values.networkPolicy.egress.enabled (include "sluice.own-redis" .) (not (include "sluice.redis-ports" . | fromJsonArray)) }}
- networkPolicy.egress.redisPorts is empty, and config.redis names no port: a policy without ports lets all through, so list those of Redis
{{- end }}
{{- end }}
