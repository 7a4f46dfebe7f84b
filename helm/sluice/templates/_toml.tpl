{{/*
TOML of the gateway's configuration. Helm's own toToml will not do: values come as floats, and it writes them as such
(1000.0, 1.6777216e+07), which no setting of a whole number takes. Text and numbers of JSON are those of TOML.
*/}}

{{- define "sluice.toml-value" -}}
{{- if kindIs "slice" . }}
{{- $parts := list }}
{{- range . }}{{ $parts = append $parts (include "sluice.toml-value" .) }}{{ end }}
{{- printf "[%s]" (join ", " $parts) }}
{{- else if kindIs "map" . }}
{{- $parts := list }}
{{- range $key, $value := . }}{{ $parts = append $parts (printf "%s = %s" $key (include "sluice.toml-value" $value)) }}{{ end }}
{{- printf "{ %s }" (join ", " $parts) }}
{{- else }}
{{- toRawJson . }}
{{- end }}
{{- end }}

{{- define "sluice.is-tables" -}}
{{- if kindIs "slice" . }}{{ if . }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end }}{{ end }}
{{- end }}

{{- define "sluice.toml-pairs" -}}
{{- range $key, $value := . }}
{{- if not (include "sluice.is-tables" $value) }}
{{ $key }} = {{ include "sluice.toml-value" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* name, and a list of tables */}}
{{- define "sluice.toml-tables" -}}
{{- $name := .name }}
{{- range .tables }}

[[{{ $name }}]]
{{- range $key, $value := . }}
{{ $key }} = {{ include "sluice.toml-value" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Plain keys, then sections with their lists of tables, then lists of tables: what follows a head belongs to it. */}}
{{- define "sluice.toml" -}}
{{- $plain := dict }}
{{- range $key, $value := . }}{{ if not (kindIs "map" $value) }}{{ $_ := set $plain $key $value }}{{ end }}{{ end }}
{{- include "sluice.toml-pairs" $plain }}
{{- range $name, $section := . }}
{{- if and (kindIs "map" $section) $section }}

[{{ $name }}]
{{- include "sluice.toml-pairs" $section }}
{{- range $key, $value := $section }}
{{- if include "sluice.is-tables" $value }}
{{- include "sluice.toml-tables" (dict "name" (printf "%s.%s" $name $key) "tables" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $tables := . }}
{{- if include "sluice.is-tables" $tables }}
{{- include "sluice.toml-tables" (dict "name" $name "tables" $tables) }}
{{- end }}
{{- end }}
{{- end }}
