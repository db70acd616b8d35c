{{/* Volumes of Secrets with some of their keys as files: (list NAME SECRET (dict KEY FILE)). */}}
{{- define "service.secretVolume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
      {{- range $key, $file := index . 2 }}
      - key: {{ $key }}
        path: {{ $file }}
      {{- end }}
{{- end -}}

{{- define "service.volumes" -}}
{{- $rabbitmq := .Values.global.rabbitmq }}
{{- $pair := dict "tls.crt" "tls.crt" "tls.key" "tls.key" }}
{{- if include "service.authenticates" . }}
{{- with .Values.global.auth.caSecret }}
{{ include "service.secretVolume" (list "issuer-ca" . (dict "ca.crt" "ca.crt")) }}
{{- end }}
{{- end }}
{{- if include "service.hasClient" . }}
{{ include "service.secretVolume" (list "client" (tpl .Values.auth.clientSecret .) (dict "id" "id" "secret" "secret")) }}
{{- end }}
{{- with .Values.database.secret }}
{{- include "service.databaseVolumes" (list $ .) }}
{{- end }}
{{- if include "service.usesBroker" . }}
{{ include "service.secretVolume" (list "broker" (include "service.brokerSecret" .) (dict "username" "username" "password" "password")) }}
{{- if $rabbitmq.tls.enabled }}
{{- with $rabbitmq.tls.caSecret }}
{{ include "service.secretVolume" (list "broker-ca" . (dict "ca.crt" "ca.crt")) }}
{{- end }}
{{- with $rabbitmq.tls.clientSecret }}
{{ include "service.secretVolume" (list "broker-client" . $pair) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The database's URL, from a Secret of this name (a template), and what TLS needs: (list ROOT SECRET). */}}
{{- define "service.databaseVolumes" -}}
{{- $root := index . 0 }}
{{- with $root.Values.database }}
{{ include "service.secretVolume" (list "database" (tpl (index $ 1) $root) (dict .key "url")) }}
{{- with .caSecret }}
{{ include "service.secretVolume" (list "database-ca" (tpl . $root) (dict "ca.crt" "ca.crt")) }}
{{- end }}
{{- with .clientSecret }}
{{ include "service.secretVolume" (list "database-client" (tpl . $root) (dict "tls.crt" "tls.crt" "tls.key" "tls.key")) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Each of the volumes in a list, at /etc/secrets/<its name>. */}}
{{- define "service.mounts" -}}
{{- range . }}
- name: {{ .name }}
  mountPath: /etc/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* libpq's variables, which the database's URL wins over. */}}
{{- define "service.databaseTLS" -}}
{{- with .Values.database }}
{{- if .caSecret }}
- name: PGSSLROOTCERT
  value: /etc/secrets/database-ca/ca.crt
- name: PGSSLMODE
  value: verify-full
{{- end }}
{{- if .clientSecret }}
- name: PGSSLCERT
  value: /etc/secrets/database-client/tls.crt
- name: PGSSLKEY
  value: /etc/secrets/database-client/tls.key
{{- end }}
{{- end }}
{{- end -}}
