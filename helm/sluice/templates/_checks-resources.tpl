{{/* What is refused about the resources of containers. Each check prints a line for each mistake. */}}

{{- define "sluice.check-resources" -}}
{{- include "sluice.check-quantities" (dict "path" "resources" "resources" .Values.resources) }}
{{- $limit := include "sluice.quantity" .Values.resources.limits.memory }}
{{- $bytes := include "sluice.memory-bytes" $limit }}
{{- $bound := include "sluice.memory-bound" . | int64 }}
{{- if and $bytes (gt $bound (int64 $bytes)) }}
- resources.limits.memory is {{ $limit }}, and the gateway may take {{ divf $bound 1048576 | ceil | int64 }}Mi by its configuration: raise it, or lower config.limits.connections (5 KiB each), .outbox.total_bytes, .hub.tail_total_bytes, .limits.replay_bytes, .limits.body_bytes (or .memory.max_bytes). It would be killed with all its streams
{{- end }}
{{- if include "sluice.trial-redis" . }}
{{- include "sluice.check-quantities" (dict "path" "trialRedis.resources" "resources" .Values.trialRedis.resources) }}
{{- $limit := include "sluice.quantity" .Values.trialRedis.resources.limits.memory }}
{{- $bytes := include "sluice.memory-bytes" $limit }}
{{- /* Full to its maxmemory of 160 MiB, and writing its file anew, it was seen to take 179 MiB. */}}
{{- if and $bytes (lt (int64 $bytes) 201326592) }}
- trialRedis.resources.limits.memory is {{ $limit }}, and the trial Redis takes 160 MiB for data alone: 192Mi or more. It would be killed with all history
{{- end }}
{{- end }}
{{- end }}

{{/* Of {path, resources}: what is no quantity, or asks for more than is allowed. */}}
{{- define "sluice.check-quantities" -}}
{{- $path := .path }}
{{- $limits := .resources.limits | default dict }}
{{- $requests := .resources.requests | default dict }}
{{- range $kind, $amounts := dict "requests" $requests "limits" $limits }}
{{- range $name := list "memory" "cpu" }}
{{- if hasKey $amounts $name }}
{{- $amount := get $amounts $name | include "sluice.quantity" }}
{{- $is := printf "%s.%s.%s is %s" $path $kind $name $amount }}
{{- if not (include (ternary "sluice.memory-bytes" "sluice.millicores" (eq $name "memory")) $amount) }}
{{- if and (eq $name "memory") (regexMatch "^[0-9.]+m$" $amount) }}
- {{ $is }}, which to Kubernetes are thousandths of a byte: write {{ trimSuffix "m" $amount }}Mi
{{- else if eq $name "memory" }}
- {{ $is }}, which is no quantity of memory: a number with Ki, Mi, Gi, Ti, k, M, G or T behind it, such as 1536Mi
{{- else }}
- {{ $is }}, which is no quantity of CPU: a number of cores such as 2 or "0.5", or of thousandths such as 250m
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (hasKey $limits "cpu") (eq (include "sluice.millicores" $limits.cpu) "0") }}
- {{ $path }}.limits.cpu is 0, which is no limit: leave it out (null), or set what the container may take
{{- end }}
{{- range $name, $reader := dict "memory" "sluice.memory-bytes" "cpu" "sluice.millicores" }}
{{- if and (hasKey $requests $name) (hasKey $limits $name) }}
{{- $asked := include $reader (get $requests $name) }}
{{- $allowed := include $reader (get $limits $name) }}
{{- if and $asked $allowed (gt (int64 $asked) (int64 $allowed)) }}
- {{ $path }}.requests.{{ $name }} is {{ get $requests $name | include "sluice.quantity" }}, more than {{ $path }}.limits.{{ $name }}, {{ get $limits $name | include "sluice.quantity" }}: Kubernetes takes no such pod
{{- end }}
{{- end }}
{{- end }}
{{- end }}
