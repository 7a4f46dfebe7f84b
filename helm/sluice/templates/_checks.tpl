{{/* What is refused about the gateway's settings. Each check prints a line for each mistake. */}}

{{/* A ConfigMap is read by whoever may look at the namespace. */}}
{{- define "sluice.check-secrets" -}}
{{- $redis := .Values.config.redis | default dict }}
{{- $auth := .Values.config.auth | default dict }}
{{- if $redis.password }}
- config.redis.password would stand in a ConfigMap: put it into a Secret and name that in redis.passwordSecret
{{- end }}
{{- if $redis.sentinel_password }}
- config.redis.sentinel_password would stand in a ConfigMap: put it into a Secret and name that in redis.sentinelPasswordSecret
{{- end }}
{{- range $key := list "url" "sentinels" "cluster" }}
{{- range kindIs "slice" (get $redis $key) | ternary (get $redis $key) (list (get $redis $key | toString)) }}
{{- if or (regexMatch "^[^:]+://[^/@]*:[^/@]*@" .) (contains "sentinel_password=" .) }}
- config.redis.{{ $key }} has a password in it, and would stand in a ConfigMap: name the user alone and the password in redis.passwordSecret (or redis.sentinelPasswordSecret), or put the whole URL into a Secret and name that in redis.urlSecret
{{- end }}
{{- end }}
{{- end }}
{{- range $auth.key }}
{{- if .secret }}
- config.auth.key has a secret in it, and would stand in a ConfigMap: put it into a Secret and name that in signingKey.existingSecret
{{- end }}
{{- end }}
{{- range $auth.api_key }}
{{- if .key }}
- config.auth.api_key has a key in it, and would stand in a ConfigMap: put it into a Secret and name that in apiKeys
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.check-ports" -}}
{{- range list "listen" "admin_listen" }}
{{- if hasKey $.Values.config . }}
- config.{{ . }} is set by the chart, as probes and Services depend on it: use bindAddress for the address, service.port for the port
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "SLUICE_" .name }}
- extraEnv sets {{ .name }}: settings of the gateway go into config, where the chart reads them too
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.check-redis" -}}
{{- $own := include "sluice.own-redis" . }}
{{- $trial := include "sluice.trial-redis" . }}
{{- $redis := .Values.config.redis | default dict }}
{{- $ways := list }}
{{- range list "url" "url_file" "sentinels" "cluster" }}
{{- if get $redis . }}{{ $ways = append $ways (printf "config.redis.%s" .) }}{{ end }}
{{- end }}
{{- if .Values.redis.urlSecret.name }}{{ $ways = append $ways "redis.urlSecret" }}{{ end }}
{{- if gt (len $ways) 1 }}
- {{ join " and " $ways }} name a Redis each: leave one of them
{{- end }}
{{- if and $own $trial }}
- trialRedis.enabled is true, and {{ join " and " $ways }} names another Redis: leave one of them out
{{- end }}
{{- if and $trial $redis.wait_replicas }}
- config.redis.wait_replicas is {{ int $redis.wait_replicas }}, and the trial Redis has no replica, so publishing would be answered 503: name a Redis with replicas, or leave it out
{{- end }}
{{- if and (not $own) (not $trial) }}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled }}
- several replicas without a Redis would each have events of their own: name one in config.redis, or set replicaCount to 1 and autoscaling.enabled to false
{{- else if $redis.wait_replicas }}
- config.redis.wait_replicas is {{ int $redis.wait_replicas }}, and there is no Redis: name one with replicas, or leave it out
{{- end }}
{{- end }}
{{- if not $own }}
{{- range $name, $set := dict "redis.passwordSecret" .Values.redis.passwordSecret.name
    "redis.sentinelPasswordSecret" .Values.redis.sentinelPasswordSecret.name "redis.caSecret" .Values.redis.caSecret.name
    "redis.certificateSecret" .Values.redis.certificateSecret "config.redis.username" $redis.username }}
{{- if $set }}
- {{ $name }} is for a Redis of your own, and none is named: config.redis.url, .sentinels or .cluster, or redis.urlSecret
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.redis.sentinelPasswordSecret.name }}
{{- if not (or $redis.sentinels .Values.redis.urlSecret.name (contains "+sentinel://" ($redis.url | default ""))) }}
- redis.sentinelPasswordSecret is set, and the Redis has no sentinels
{{- end }}
{{- end }}
{{- if or .Values.redis.caSecret.name .Values.redis.certificateSecret }}
{{- $urls := join " " (concat (list ($redis.url | default "")) ($redis.sentinels | default list) ($redis.cluster | default list)) }}
{{- if and $own (not (or .Values.redis.urlSecret.name $redis.url_file)) (not (contains "rediss" $urls)) }}
- redis.caSecret and redis.certificateSecret are for TLS, and no URL of config.redis begins with rediss
{{- end }}
{{- end }}
{{- include "sluice.check-twice" . }}
{{- end }}

{{/* Settings that the chart makes from Secrets, and that config has too. */}}
{{- define "sluice.check-twice" -}}
{{- $settings := include "sluice.file-settings" . | fromYaml }}
{{- range include "sluice.secret-files" . | fromJsonArray }}
{{- with get $settings .path }}
{{- $parts := splitList "." . }}
{{- if dig (first $parts) (last $parts) "" $.Values.config }}
- config.{{ . }} is set, and the chart sets it too, as a Secret is named for it: leave one of them out
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.check-keys" -}}
{{- $auth := .Values.config.auth | default dict }}
{{- $signing := include "sluice.signing-secret" . | fromJson }}
{{- $generate := toString .Values.signingKey.generate }}
{{- if and (eq $generate "true") .Values.signingKey.existingSecret.name }}
- signingKey.generate is true, and signingKey.existingSecret names one: leave one of them out
{{- end }}
{{- $keys := or $signing.name $auth.key $auth.api_key .Values.apiKeys }}
{{- if and $auth.open $keys }}
- config.auth.open is true, and there are keys, which say who may do what: leave one of them out
{{- end }}
{{- if not (or $auth.open $keys) }}
- there is no key, and signingKey.generate is false: name one in signingKey.existingSecret, config.auth.key or apiKeys, or set config.auth.open if everybody may do everything
{{- end }}
{{- $names := list }}
{{- range concat ($auth.api_key | default list) (.Values.apiKeys | default list) }}
{{- if has .name $names }}
- there are two keys named {{ .name }} in apiKeys and config.auth.api_key: they could not be told apart
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- if and (not $signing.name) (or .Values.signingKey.issuer .Values.signingKey.audience) }}
- signingKey.issuer and signingKey.audience belong to the chart's key, and there is none
{{- end }}
{{- if and .Values.tls.clientCaSecret.name (not .Values.tls.existingSecret) (not (dig "tls" "certificate" "" .Values.config)) }}
- tls.clientCaSecret is set, and there is no TLS: name a certificate in tls.existingSecret
{{- end }}
{{- end }}

{{/* What a duration or a size of the gateway may be; files/ranges.json is made from its reference. */}}
{{- define "sluice.check-ranges" -}}
{{- $ranges := required "the chart lacks files/ranges.json" (.Files.Get "files/ranges.json") | fromJson }}
{{- range $path, $range := $ranges }}
{{- $parts := splitList "." $path }}
{{- include "sluice.check-range" (dict "name" (printf "config.%s" $path) "range" $range
    "value" (dig (first $parts) (last $parts) "" $.Values.config)) }}
{{- end }}
{{- include "sluice.check-range" (dict "name" "autoscaling.maxAge" "range" (get $ranges "stream.max_age") "value" .Values.autoscaling.maxAge) }}
{{- end }}

{{- define "sluice.check-range" -}}
{{- if not (has (toString .value) (list "" "off" "false")) }}
{{- $reader := hasSuffix "B" (first .range) | ternary "sluice.bytes" "sluice.ms" }}
{{- $value := include $reader .value | int64 }}
{{- if or (lt $value (include $reader (first .range) | int64)) (gt $value (include $reader (last .range) | int64)) }}
- {{ .name }} is {{ include "sluice.quantity" .value }}, and the gateway takes {{ first .range }} to {{ last .range }}
{{- end }}
{{- end }}
{{- end }}
