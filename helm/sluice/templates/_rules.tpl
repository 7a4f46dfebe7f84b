{{/* Channel rules as the gateway reads them from its environment: one TOML list of inline tables. */}}
{{- define "sluice.rules" -}}
[{{ range $index, $rule := . }}{{ if $index }}, {{ end }}{ match = {{ toJson $rule.match }}
{{- with $rule.history }}, history = {{ if kindIs "map" . }}{ {{ $first := true }}
{{- range $name, $value := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $name }} = {{ toJson $value }}{{ end }} }
{{- else }}{{ toJson . }}{{ end }}{{ end }}
{{- if eq (toString $rule.history) "false" }}, history = "off"{{ end }} }{{ end }}]
{{- end }}
