{{/* Sizes, and the memory that the gateway may take by its configuration. */}}

{{/* Bytes of a size as the gateway or Kubernetes writes it: "64KiB", "500MB", "1536Mi", "2G", 1024. */}}
{{- define "sluice.bytes" -}}
{{- $text := . | toString | lower | nospace }}
{{- if kindIs "float64" . }}{{ $text = int64 . | toString }}{{ end }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text }}
{{- $unit := trimPrefix $number $text | trimSuffix "b" }}
{{- $scale := get (dict "" 1 "k" 1e3 "m" 1e6 "g" 1e9 "t" 1e12 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776) $unit }}
{{- if or (not $number) (not $scale) }}
{{- fail (printf "%s is no size that this chart can read" (quote .)) }}
{{- end }}
{{- mulf (float64 $number) $scale | ceil | int64 }}
{{- end }}

{{/* What is bounded by configuration, all of it at once: 5 KiB a connection is docs/capacity.md's. */}}
{{- define "sluice.memory-bound" -}}
{{- $config := .Values.config }}
{{- $bytes := mul 5120 (dig "limits" "connections" 19000 $config | int64) }}
{{- $sizes := list (dig "outbox" "total_bytes" "256MiB" $config) (dig "hub" "tail_total_bytes" "256MiB" $config)
    (dig "limits" "replay_bytes" "256MiB" $config) (dig "limits" "body_bytes" "256MiB" $config) }}
{{- if not (or (include "sluice.own-redis" .) (include "sluice.trial-redis" .)) }}
{{- $sizes = append $sizes (dig "memory" "max_bytes" "256MiB" $config) }}
{{- end }}
{{- range $sizes }}{{ $bytes = add $bytes (include "sluice.bytes" . | int64) }}{{ end }}
{{- $bytes }}
{{- end }}
