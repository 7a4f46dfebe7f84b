{{/*
Whether there can be a test. It speaks plain HTTP as any client of the Service, with a token that it must get from
somewhere: not so where the gateway has TLS, wants PROXY headers, or knows keys of others alone.
*/}}
{{- define "sluice.test-pod" -}}
{{- $signing := include "sluice.signing-secret" . | fromJson }}
{{- $token := or $signing.name .Values.test.tokenSecret.name (dig "auth" "open" false .Values.config) }}
{{- $plain := not (or .Values.tls.existingSecret (dig "tls" "certificate" "" .Values.config) (dig "proxy" "protocol" false .Values.config)) }}
{{- if and .Values.test.enabled $token $plain }}yes{{ end }}
{{- end }}
