{{/* Durations, and the times that a pod takes to leave. */}}

{{/* A duration as the gateway reads it, in whole milliseconds, rounded up. */}}
{{- define "sluice.ms" -}}
{{- $text := . | toString | lower | nospace }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text }}
{{- $scale := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) (trimPrefix $number $text) }}
{{- if or (not $number) (not $scale) }}
{{- fail (printf "%s is no duration: a number and one of ms, s, m, h and d" (quote .)) }}
{{- end }}
{{- mulf (float64 $number) $scale | ceil | int64 }}
{{- end }}

{{- define "sluice.seconds" -}}
{{- divf (include "sluice.ms" . | int64) 1000 | ceil | int64 }}
{{- end }}

{{- define "sluice.delay-ms" -}}
{{- include "sluice.ms" (dig "drain" "delay" "5s" .Values.config) }}
{{- end }}

{{/* How long it takes from SIGTERM until the last stream has been closed, in seconds. */}}
{{- define "sluice.drain-seconds" -}}
{{- $window := include "sluice.ms" (dig "drain" "window" "30s" .Values.config) | int64 }}
{{- divf (add (include "sluice.delay-ms" . | int64) $window) 1000 | ceil | int64 }}
{{- end }}

{{/* What drain.delay lacks of the time until nothing is sent to the pod any more. */}}
{{- define "sluice.pre-stop-seconds" -}}
{{- $lacking := subf (mul .Values.endpointRemovalSeconds 1000) (include "sluice.delay-ms" . | int64) }}
{{- max 0 (divf $lacking 1000 | ceil | int64) }}
{{- end }}

{{/* 10 s beside what is waited for: 5 s at most for the last answers, and some for a node that is busy. */}}
{{- define "sluice.grace-needed" -}}
{{- add (include "sluice.pre-stop-seconds" . | int64) (include "sluice.drain-seconds" . | int64) 10 }}
{{- end }}

{{- define "sluice.grace" -}}
{{- if eq (toString .Values.terminationGracePeriodSeconds) "auto" }}
{{- include "sluice.grace-needed" . }}
{{- else }}
{{- int64 .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{- define "sluice.min-ready-seconds" -}}
{{- if eq (toString .Values.minReadySeconds) "auto" }}
{{- include "sluice.drain-seconds" . }}
{{- else }}
{{- int64 .Values.minReadySeconds }}
{{- end }}
{{- end }}
