{{/* Labels and annotations of a resource that is no service's: (list ROOT LABELS ANNOTATIONS), of which the last may be missing. */}}
{{- define "orderflow.about" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/part-of" $root.Release.Name
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- if gt (len .) 1 }}{{ $labels = merge $labels (index . 1) }}{{ end -}}
{{- $annotations := dict -}}
{{- if gt (len .) 2 }}{{ $annotations = merge $annotations (index . 2) }}{{ end -}}
labels:
  {{- merge $labels $root.Values.global.commonLabels | toYaml | nindent 2 }}
{{- with merge $annotations $root.Values.global.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image from the registry of all images, unless it names one itself: (list ROOT IMAGE). */}}
{{- define "orderflow.image" -}}
{{- $first := splitList "/" (index . 1) | initial | first | default "" -}}
{{- $registry := (index . 0).Values.global.imageRegistry -}}
{{- if and $registry (not (regexMatch "[.:]|^localhost$" $first)) -}}
{{ trimSuffix "/" $registry }}/{{ index . 1 }}
{{- else -}}
{{ index . 1 }}
{{- end -}}
{{- end -}}

{{/* A helpful failure where a cluster is asked and lacks a kind: (list ROOT "group/version/Kind" "what to do"). */}}
{{- define "orderflow.requires" -}}
{{- $apis := (index . 0).Capabilities.APIVersions -}}
{{- /* Without a cluster Helm knows groups, but no kinds. */}}
{{- if and ($apis.Has "apps/v1/Deployment") (not ($apis.Has (index . 1))) }}
{{- fail (printf "the cluster knows no %s: %s" (index . 1) (index . 2)) }}
{{- end }}
{{- end -}}
