{{/* What is refused about names, labels and annotations: those that the chart has itself, and those that are there twice. */}}

{{- define "sluice.check-names" -}}
{{- $labels := include "sluice.labels" . | fromYaml }}
{{- $selector := include "sluice.selector" . | fromYaml }}
{{- range $key, $_ := .Values.podLabels }}
{{- if hasKey $selector $key }}
- podLabels sets {{ $key }}, by which the Deployment and the Services find the gateway's pods: leave it out (nameOverride is for another app.kubernetes.io/name)
{{- end }}
{{- end }}
{{- if hasKey (.Values.podAnnotations | default dict) "checksum/config" }}
- podAnnotations sets checksum/config, by which a change of config rolls the pods: leave it out, or take another name
{{- end }}
{{- range $part := list "serviceMonitor" "prometheusRule" "dashboard" }}
{{- range $key, $_ := (get $.Values $part).labels }}
{{- if hasKey $labels $key }}
- {{ $part }}.labels sets {{ $key }}, which the chart sets itself: leave it out
{{- end }}
{{- end }}
{{- end }}
{{- end }}
