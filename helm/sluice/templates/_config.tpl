{{/* The gateway's configuration: what the values say under `config`, and what the chart adds to it. */}}

{{/* Whether a Redis is configured that is not the chart's: anything, or nothing. */}}
{{- define "sluice.own-redis" -}}
{{- $redis := .Values.config.redis | default dict }}
{{- if or $redis.url $redis.url_file $redis.sentinels $redis.cluster .Values.redis.urlSecret.name }}yes{{ end }}
{{- end }}

{{- define "sluice.trial-redis" -}}
{{- $enabled := toString .Values.trialRedis.enabled }}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") (not (include "sluice.own-redis" .))) }}yes{{ end }}
{{- end }}

{{- define "sluice.generated-key" -}}
{{- $generate := toString .Values.signingKey.generate }}
{{- $auth := .Values.config.auth | default dict }}
{{- $other := or .Values.signingKey.existingSecret.name $auth.key $auth.open }}
{{- if or (eq $generate "true") (and (eq $generate "auto") (not $other)) }}yes{{ end }}
{{- end }}

{{/* The Secret with the signing key and the key in it, as JSON; the name is empty if there is none. */}}
{{- define "sluice.signing-secret" -}}
{{- if include "sluice.generated-key" . }}
{{- dict "name" (printf "%s-signing-key" (include "sluice.fullname" .)) "key" "signing.key" | toJson }}
{{- else }}
{{- .Values.signingKey.existingSecret | toJson }}
{{- end }}
{{- end }}

{{/* What of Secrets is mounted: a list of {secret, key, path}, as JSON, with paths below /etc/sluice. */}}
{{- define "sluice.secret-files" -}}
{{- $files := list }}
{{- $signing := include "sluice.signing-secret" . | fromJson }}
{{- $files = append $files (dict "secret" $signing.name "key" $signing.key "path" "signing.key") }}
{{- range $index, $apiKey := .Values.apiKeys }}
{{- $files = append $files (dict "secret" $apiKey.secret.name "key" $apiKey.secret.key "path" (printf "api-key-%d" $index)) }}
{{- end }}
{{- if include "sluice.trial-redis" . }}
{{- $files = append $files (dict "secret" (printf "%s-trial-redis" (include "sluice.fullname" .)) "key" "password" "path" "redis-password") }}
{{- end }}
{{- range $path, $secret := dict "redis-url" .Values.redis.urlSecret "redis-password" .Values.redis.passwordSecret
    "sentinel-password" .Values.redis.sentinelPasswordSecret "redis-ca.crt" .Values.redis.caSecret
    "client-ca.crt" .Values.tls.clientCaSecret }}
{{- $files = append $files (dict "secret" $secret.name "key" $secret.key "path" $path) }}
{{- end }}
{{- range $prefix, $secret := dict "redis" .Values.redis.certificateSecret "tls" .Values.tls.existingSecret }}
{{- range list "crt" "key" }}
{{- $files = append $files (dict "secret" $secret "key" (printf "tls.%s" .) "path" (printf "%s.%s" $prefix .)) }}
{{- end }}
{{- end }}
{{- $named := list }}
{{- range $files }}{{ if .secret }}{{ $named = append $named . }}{{ end }}{{ end }}
{{- $named | toJson }}
{{- end }}

{{/* The settings that name such files, in their section. */}}
{{- define "sluice.file-settings" -}}
redis-url: redis.url_file
redis-password: redis.password_file
sentinel-password: redis.sentinel_password_file
redis-ca.crt: redis.ca
redis.crt: redis.certificate
redis.key: redis.key
tls.crt: tls.certificate
tls.key: tls.key
client-ca.crt: tls.client_ca
{{- end }}

{{/* All of it, as JSON. */}}
{{- define "sluice.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range list "auth" "redis" "tls" "stream" "limits" }}
{{- if not (get $config .) }}{{ $_ := set $config . dict }}{{ end }}
{{- end }}
{{- if include "sluice.trial-redis" . }}
{{- $_ := set $config.redis "url" (printf "redis://%s-redis:6379" (include "sluice.fullname" .)) }}
{{- end }}
{{- $settings := include "sluice.file-settings" . | fromYaml }}
{{- $apiKeys := $config.auth.api_key | default list }}
{{- range include "sluice.secret-files" . | fromJsonArray }}
{{- $path := printf "/etc/sluice/%s" .path }}
{{- if eq .path "signing.key" }}
{{- $key := dict "alg" "HS256" "secret_file" $path }}
{{- with $.Values.signingKey.issuer }}{{ $_ := set $key "issuer" . }}{{ end }}
{{- with $.Values.signingKey.audience }}{{ $_ := set $key "audience" . }}{{ end }}
{{- $_ := set $config.auth "key" (append ($config.auth.key | default list) $key) }}
{{- else if hasPrefix "api-key-" .path }}
{{- $apiKey := index $.Values.apiKeys (trimPrefix "api-key-" .path | atoi) }}
{{- $apiKeys = append $apiKeys (omit $apiKey "secret" | merge (dict "key_file" $path)) }}
{{- else }}
{{- $setting := get $settings .path | splitList "." }}
{{- $_ := set (get $config (first $setting)) (last $setting) $path }}
{{- end }}
{{- end }}
{{- with $apiKeys }}{{ $_ := set $config.auth "api_key" . }}{{ end }}
{{- if and .Values.autoscaling.enabled (not (hasKey $config.stream "max_age")) }}
{{- $_ := set $config.stream "max_age" .Values.autoscaling.maxAge }}
{{- end }}
{{- include "sluice.off" $config }}
{{- $config | toJson }}
{{- end }}

{{/* YAML reads a bare off as false: where the gateway knows "off", that is what was meant. */}}
{{- define "sluice.off" -}}
{{- $tables := list .stream .limits }}
{{- range .channel }}{{ $tables = append $tables . }}{{ end }}
{{- range $table := $tables }}
{{- range $key, $value := $table }}
{{- if and (kindIs "bool" $value) (or (has $key (list "max_age" "history")) (regexMatch "_per_(address|subject|channel)$" $key)) }}
{{- $_ := set $table $key "off" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
