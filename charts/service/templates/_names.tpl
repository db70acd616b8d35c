{{/* The workload's name: the release and the alias this chart was given. */}}
{{- define "service.fullname" -}}
{{- printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects this workload's pods; a Deployment's selector can never change. */}}
{{- define "service.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "service.labels" -}}
{{ include "service.selectorLabels" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/part-of: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The RabbitmqCluster's name when the broker is one of the cluster operator's. */}}
{{- define "service.rabbitmqCluster" -}}
{{- default (printf "%s-rabbitmq" .Release.Name) .Values.global.rabbitmq.cluster -}}
{{- end -}}

{{/* "true" when the workload publishes or consumes, so that it needs a broker user. */}}
{{- define "service.usesBroker" -}}
{{- if or .Values.broker.publishes .Values.broker.queues }}true{{ end -}}
{{- end -}}
