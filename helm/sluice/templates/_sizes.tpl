{{/* Sizes, and the memory that the gateway may take by its configuration. */}}

{{/* Bytes of a size as the gateway reads it: "64KiB", "500MB", 1024. */}}
{{- define "sluice.bytes" -}}
{{- $text := . | toString | lower | nospace }}
{{- if kindIs "float64" . }}{{ $text = int64 . | toString }}{{ end }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text }}
{{- $unit := trimPrefix $number $text | trimSuffix "b" }}
{{- $scale := get (dict "" 1 "k" 1e3 "m" 1e6 "g" 1e9 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776) $unit }}
{{- if or (not $number) (not $scale) }}
{{- fail (printf "%s is no size that this chart can read" (quote .)) }}
{{- end }}
{{- mulf (float64 $number) $scale | ceil | int64 }}
{{- end }}

{{/* A quantity as it was written: Helm has whole numbers as floats, and would say 1.17e+09. */}}
{{- define "sluice.quantity" -}}
{{- if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/*
Bytes of memory as Kubernetes reads it, or nothing where that is no quantity. Case counts: 2M is 2,000,000 bytes, and 2m two
thousandths of one, which nobody means.
*/}}
{{- define "sluice.memory-bytes" -}}
{{- $text := include "sluice.quantity" . }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text }}
{{- $scale := get (dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) (trimPrefix $number $text) }}
{{- if and $number $scale }}{{ mulf (float64 $number) $scale | ceil | int64 }}{{ end }}
{{- end }}

{{/* Thousandths of a core, rounded up, or nothing where that is no quantity. */}}
{{- define "sluice.millicores" -}}
{{- $text := include "sluice.quantity" . }}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?m?$" $text }}
{{- mulf (trimSuffix "m" $text | float64) (hasSuffix "m" $text | ternary 1 1000) | ceil | int64 }}
{{- end }}
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
