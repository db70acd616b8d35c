{{- define "postgres.fullname" -}}
{{ .Release.Name }}-postgres
{{- end -}}

{{- define "postgres.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels and annotations of a resource: (list ROOT ANNOTATIONS), the last of which may be missing. */}}
{{- define "postgres.about" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
  "app.kubernetes.io/name" $root.Chart.Name
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" $root.Release.Name
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $annotations := dict -}}
{{- if gt (len .) 1 }}{{ $annotations = merge $annotations (index . 1) }}{{ end -}}
labels:
  {{- merge $labels $root.Values.global.commonLabels | toYaml | nindent 2 }}
{{- with merge $annotations $root.Values.global.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image from the registry of all images, unless it names one itself: (list ROOT IMAGE). */}}
{{- define "postgres.image" -}}
{{- $first := splitList "/" (index . 1) | initial | first | default "" -}}
{{- $registry := (index . 0).Values.global.imageRegistry -}}
{{- if and $registry (not (regexMatch "[.:]|^localhost$" $first)) -}}
{{ trimSuffix "/" $registry }}/{{ index . 1 }}
{{- else -}}
{{ index . 1 }}
{{- end -}}
{{- end -}}

{{/* A map without the keys that are null: how a value of the chart's own is taken away. */}}
{{- define "postgres.withoutNulls" -}}
{{- $all := dict -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $all = set $all $key $value }}{{ end }}{{ end -}}
{{ toYaml $all }}
{{- end -}}
