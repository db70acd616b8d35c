{{/* The RabbitmqCluster's name. */}}
{{- define "messaging.cluster" -}}
{{- default (printf "%s-rabbitmq" .Release.Name) .Values.global.rabbitmq.cluster -}}
{{- end -}}

{{/*
Labels and annotations of a resource: (list ROOT WAVE ANNOTATIONS), the last of which may be missing. The wave is Argo
CD's: -4 for the broker, -3 for what is declared in it.
*/}}
{{- define "messaging.about" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
  "app.kubernetes.io/name" $root.Chart.Name
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" $root.Release.Name
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $annotations := dict -}}
{{- if gt (len .) 2 }}{{ $annotations = merge $annotations (index . 2) }}{{ end -}}
{{- $annotations = merge $annotations $root.Values.global.commonAnnotations -}}
{{- if and $root.Values.global.argoCD.waves (ne (index . 1) 0) -}}
{{- $annotations = set $annotations "argocd.argoproj.io/sync-wave" (index . 1 | toString) -}}
{{- end -}}
labels:
  {{- merge $labels $root.Values.global.commonLabels | toYaml | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations that keep the broker, and what it cannot do without, when the release is removed. */}}
{{- define "messaging.kept" -}}
{{- if .Values.global.rabbitmq.keepOnUninstall -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false,Delete=false
{{- end -}}
{{- end -}}

{{/* An image from the registry of all images, unless it names one itself: (list ROOT IMAGE). */}}
{{- define "messaging.image" -}}
{{- $first := splitList "/" (index . 1) | initial | first | default "" -}}
{{- $registry := (index . 0).Values.global.imageRegistry -}}
{{- if and $registry (not (regexMatch "[.:]|^localhost$" $first)) -}}
{{ trimSuffix "/" $registry }}/{{ index . 1 }}
{{- else -}}
{{ index . 1 }}
{{- end -}}
{{- end -}}

{{/* A helpful failure where a cluster is asked and lacks a kind: (list ROOT "group/version/Kind" "what to do"). */}}
{{- define "messaging.requires" -}}
{{- $apis := (index . 0).Capabilities.APIVersions -}}
{{- /* Without a cluster Helm knows groups, but no kinds. */}}
{{- if and ($apis.Has "apps/v1/Deployment") (not ($apis.Has (index . 1))) }}
{{- fail (printf "the cluster knows no %s: %s" (index . 1) (index . 2)) }}
{{- end }}
{{- end -}}

{{/* A map without the keys that are null: how a value of the chart's own is taken away. */}}
{{- define "messaging.withoutNulls" -}}
{{- $all := dict -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $all = set $all $key $value }}{{ end }}{{ end -}}
{{ toYaml $all }}
{{- end -}}

{{/* The Secret with the broker's certificate. */}}
{{- define "messaging.tlsSecret" -}}
{{- with .Values.cluster.tls }}
{{- .secret | default (.issuer.name | empty | ternary "" (printf "%s-tls" (include "messaging.cluster" $))) }}
{{- end }}
{{- end -}}

{{/* Where the topology operator finds the broker. */}}
{{- define "messaging.brokerReference" -}}
rabbitmqClusterReference:
{{- with .Values.global.rabbitmq.connectionSecret }}
  connectionSecret:
    name: {{ . }}
{{- else }}
  name: {{ include "messaging.cluster" . }}
  {{- with .Values.global.rabbitmq.namespace }}
  namespace: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}
