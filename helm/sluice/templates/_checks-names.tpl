{{/* What is refused about names, labels and annotations: those that the chart has itself, and those that are there twice. */}}

{{- define "sluice.check-names" -}}
{{- $labels := include "sluice.labels" . | fromYaml }}
{{- $selector := include "sluice.selector" . | fromYaml }}
{{- $name := include "sluice.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
- the release's objects would be named {{ $name }}, and a Service's name is a letter first, then letters, digits and -: set fullnameOverride
{{- end }}
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

{{- define "sluice.check-volumes" -}}
{{- $volumes := list "settings" }}
{{- range .Values.extraVolumes }}
{{- if eq .name "settings" }}
- extraVolumes has settings, which is the volume of the chart's own: take another name
{{- else if has .name $volumes }}
- extraVolumes has {{ .name }} twice
{{- end }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- $paths := list }}
{{- range .Values.extraVolumeMounts }}
{{- if not (has .name $volumes) }}
- extraVolumeMounts has {{ .name }}, and there is no such volume: add it to extraVolumes
{{- end }}
{{- if regexMatch "^/etc/sluice(/|$)" .mountPath }}
- extraVolumeMounts has {{ .mountPath }}: /etc/sluice is the chart's, and nothing can be mounted in it
{{- else if has .mountPath $paths }}
- extraVolumeMounts has {{ .mountPath }} twice
{{- end }}
{{- $paths = append $paths .mountPath }}
{{- end }}
{{- end }}
