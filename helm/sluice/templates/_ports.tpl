{{/* Ports that the gateway connects to, for the NetworkPolicy. */}}

{{/* Those that config.redis names, and networkPolicy.egress.redisPorts; a JSON list. */}}
{{- define "sluice.redis-ports" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.egress.redisPorts }}{{ $ports = append $ports (int .) }}{{ end }}
{{- $redis := .Values.config.redis | default dict }}
{{- $urls := concat (list ($redis.url | default "")) ($redis.sentinels | default list) ($redis.cluster | default list) }}
{{- range $urls }}
{{- range regexFindAll ":[0-9]+(,|/|\\?|$)" . -1 }}
{{- $ports = append $ports (regexFind "[0-9]+" . | int) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* Those of the addresses that signing keys are fetched from and traces are sent to; a JSON list. */}}
{{- define "sluice.web-ports" -}}
{{- $urls := list (dig "traces" "otlp" "" .Values.config) }}
{{- range dig "auth" "key" list .Values.config }}{{ $urls = append $urls (.jwks_url | default "") }}{{ end }}
{{- $ports := list }}
{{- range compact $urls }}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $ports = append $ports ($port | default (ternary 80 443 (eq $url.scheme "http")) | int) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}
