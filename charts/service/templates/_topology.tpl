{{/* Where the topology operator finds the broker. */}}
{{- define "service.brokerReference" -}}
rabbitmqClusterReference:
{{- with .Values.global.rabbitmq.connectionSecret }}
  connectionSecret:
    name: {{ . }}
{{- else }}
  name: {{ include "service.rabbitmqCluster" . }}
  {{- with .Values.global.rabbitmq.namespace }}
  namespace: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A regular expression that matches exactly the names in the list, or nothing when it is empty. */}}
{{- define "service.exactly" -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names (regexQuoteMeta .) }}{{ end -}}
{{- if $names }}^({{ join "|" $names }})${{ else }}^${{ end -}}
{{- end -}}

{{/* The same for routing keys with the wildcards of a topic exchange: * is one word, # is any number. */}}
{{- define "service.routingKeys" -}}
{{- $keys := list -}}
{{- range . }}
{{- $keys = append $keys (regexQuoteMeta . | replace "\\*" "[^.]+" | replace "#" ".*") -}}
{{- end -}}
{{- if $keys }}^({{ join "|" $keys }})${{ else }}^${{ end -}}
{{- end -}}

{{/* A resource name for a binding. It holds everything about a binding, since none of it can be changed later. */}}
{{- define "service.bindingName" -}}
{{- if regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$" .key -}}
{{ printf "%s-%s-%s" .release .queue .key }}
{{- else -}}
{{ printf "%s-%s-%s" .release .queue (sha256sum .key | trunc 8) }}
{{- end -}}
{{- end -}}
