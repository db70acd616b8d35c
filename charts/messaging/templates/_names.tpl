{{/* The RabbitmqCluster's name. */}}
{{- define "messaging.cluster" -}}
{{- default (printf "%s-rabbitmq" .Release.Name) .Values.global.rabbitmq.cluster -}}
{{- end -}}

{{- define "messaging.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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
