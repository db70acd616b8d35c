{{/* The workload's own name: the alias this chart was given. */}}
{{- define "service.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- define "service.fullname" -}}
{{- printf "%s-%s" .Release.Name (include "service.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the workload's pods; a Deployment's selector can never change. */}}
{{- define "service.selectorLabels" -}}
app.kubernetes.io/name: {{ include "service.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "service.labels" -}}
{{ include "service.selectorLabels" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/part-of: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "service.image" -}}
{{- $repository := required (printf "%s.image.repository is required" .Chart.Name) .Values.image.repository -}}
{{- with .Values.global.imageRegistry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The Secret with the broker user's name and password, written by the topology operator. */}}
{{- define "service.brokerSecret" -}}
{{ include "service.fullname" . }}-user-credentials
{{- end -}}

{{/* The RabbitmqCluster's name when the broker is one of the cluster operator's. */}}
{{- define "service.rabbitmqCluster" -}}
{{- default (printf "%s-rabbitmq" .Release.Name) .Values.global.rabbitmq.cluster -}}
{{- end -}}

{{/* "true" when the workload publishes or consumes, so that it needs a broker user. */}}
{{- define "service.usesBroker" -}}
{{- if or .Values.broker.publishes .Values.broker.queues }}true{{ end -}}
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

{{/* Labels by which network policies of the release know who may call the broker and the databases. */}}
{{- define "service.clientLabels" -}}
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
