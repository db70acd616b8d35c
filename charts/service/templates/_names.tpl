{{/* The workload's own name: the alias this chart was given. */}}
{{- define "service.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- define "service.fullname" -}}
{{- printf "%s-%s" .Release.Name (include "service.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the workload's pods; a Deployment's selector can never change. */}}
{{- define "service.selectorLabels" -}}
app.kubernetes.io/name: {{ include "service.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "service.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "service.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" (default .Chart.AppVersion .Values.image.tag | trunc 63)
  "app.kubernetes.io/part-of" .Release.Name
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{ merge $own .Values.global.commonLabels | toYaml }}
{{- end -}}

{{/*
Labels and annotations of a resource: (list ROOT WAVE ANNOTATIONS LABELS), the last two of which may be missing. The wave
is Argo CD's: -4 for the broker, -3 for what is declared in it and refers to nothing else, -2 for bindings, and -1 for
permissions: nobody can publish an event before all its queues get it.
*/}}
{{- define "service.about" -}}
{{- $root := index . 0 -}}
{{- $annotations := dict -}}
{{- $labels := include "service.labels" $root | fromYaml -}}
{{- if gt (len .) 2 }}{{ $annotations = merge $annotations (index . 2) }}{{ end -}}
{{- if gt (len .) 3 }}{{ $labels = merge $labels (index . 3) }}{{ end -}}
{{- $annotations = merge $annotations $root.Values.global.commonAnnotations -}}
{{- if and $root.Values.global.argoCD.waves (ne (index . 1) 0) -}}
{{- $annotations = set $annotations "argocd.argoproj.io/sync-wave" (index . 1 | toString) -}}
{{- end -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A helpful failure where a cluster is asked and lacks a kind: (list ROOT "group/version/Kind" "what to do"). */}}
{{- define "service.requires" -}}
{{- $apis := (index . 0).Capabilities.APIVersions -}}
{{- /* Without a cluster Helm knows groups, but no kinds. */}}
{{- if and ($apis.Has "apps/v1/Deployment") (not ($apis.Has (index . 1))) }}
{{- fail (printf "the cluster knows no %s: %s" (index . 1) (index . 2)) }}
{{- end }}
{{- end -}}

{{- define "service.image" -}}
{{- $repository := required (printf "%s.image.repository is required" .Chart.Name) .Values.image.repository -}}
{{- with .Values.global.imageRegistry | default .Values.image.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The Secret with the broker user's name and password: one that exists, or the one that the topology operator writes. */}}
{{- define "service.brokerSecret" -}}
{{- with .Values.broker.secret }}{{ tpl . $ }}{{ else }}{{ include "service.fullname" . }}-user-credentials{{ end }}
{{- end -}}

{{/* The RabbitmqCluster's name when the broker is one of the cluster operator's. */}}
{{- define "service.rabbitmqCluster" -}}
{{- default (printf "%s-rabbitmq" .Release.Name) .Values.global.rabbitmq.cluster -}}
{{- end -}}

{{/* "true" when the workload publishes or consumes, so that it needs a broker user. */}}
{{- define "service.usesBroker" -}}
{{- if or .Values.broker.publishes .Values.broker.queues .Values.broker.deadLettersOf }}true{{ end -}}
{{- end -}}

{{- define "service.brokerPort" -}}
{{- .Values.global.rabbitmq.port | default (.Values.global.rabbitmq.tls.enabled | ternary 5671 5672) | int -}}
{{- end -}}

{{/* The broker's URL without user, password and virtual host. */}}
{{- define "service.brokerURL" -}}
{{- $rabbitmq := .Values.global.rabbitmq -}}
{{- $namespace := default .Release.Namespace $rabbitmq.namespace -}}
{{- $host := default (printf "%s.%s.svc" (include "service.rabbitmqCluster" .) $namespace) $rabbitmq.host -}}
{{- printf "%s://%s:%s" ($rabbitmq.tls.enabled | ternary "amqps" "amqp") $host (include "service.brokerPort" .) -}}
{{- end -}}

{{/* "true" when the topology operator declares what the workload needs at the broker. */}}
{{- define "service.declares" -}}
{{- if and .Values.global.rabbitmq.topology.enabled (include "service.usesBroker" .) }}true{{ end -}}
{{- end -}}

{{- define "service.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{ tpl .Values.serviceAccount.name . }}
{{- else if .Values.serviceAccount.create -}}
{{ include "service.fullname" . }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* A map without the keys that are null: how a value of the chart's own is taken away. */}}
{{- define "service.withoutNulls" -}}
{{- $all := dict -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $all = set $all $key $value }}{{ end }}{{ end -}}
{{ toYaml $all }}
{{- end -}}

{{/* Nine tenths of a memory quantity, in bytes. */}}
{{- define "service.softMemoryLimit" -}}
{{- $limit := kindIs "string" . | ternary . (printf "%.0f" (float64 .)) -}}
{{- $number := regexFind "^[0-9.]+" $limit -}}
{{- $bytes := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (float64 $number) (get $bytes (trimPrefix $number $limit)) 0.9 | int64 -}}
{{- end -}}

{{/* "true" when there can be more than one pod. */}}
{{- define "service.replicated" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end -}}

{{/*
The pods' own labels. By the last two network policies of the release know who may call the broker and the databases.
*/}}
{{- define "service.podLabels" -}}
{{ include "service.selectorLabels" . }}
app.kubernetes.io/part-of: {{ .Release.Name }}
{{- if include "service.usesBroker" . }}
{{ include "service.rabbitmqCluster" . }}-client: "true"
{{- end }}
{{- if .Values.database.secret }}
{{ .Release.Name }}-postgres-client: "true"
{{- end }}
{{- end -}}

{{/* Whether the workload takes or gets access tokens. */}}
{{- define "service.authenticates" -}}
{{- if and .Values.global.auth.issuer (or .Values.auth.enabled .Values.auth.clientSecret) }}true{{ end }}
{{- end }}

{{/* Whether the workload is a client at the issuer. */}}
{{- define "service.hasClient" -}}
{{- if and .Values.global.auth.issuer .Values.auth.clientSecret }}true{{ end }}
{{- end }}

{{/* The ports that the issuer's keys and tokens come from, as a JSON array. */}}
{{- define "service.issuerPorts" -}}
{{- $ports := list }}
{{- range .Values.global.networkPolicy.issuerPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- range list .Values.global.auth.issuer .Values.global.auth.keysURL .Values.global.auth.tokenURL }}
{{- if . }}
{{- $url := urlParse . }}
{{- $port := ternary 443 80 (eq $url.scheme "https") }}
{{- if contains ":" $url.host }}
{{- $port = last (splitList ":" $url.host) | int }}
{{- end }}
{{- $ports = append $ports $port }}
{{- end }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}
