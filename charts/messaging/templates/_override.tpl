{{/* What the operator has no field for: the chart's own, under the user's. */}}
{{- define "messaging.override" -}}
{{- $name := include "messaging.cluster" . -}}
{{- $all := dict -}}
{{- with .Values.cluster -}}
{{- $spec := dict -}}
{{- with .priorityClassName }}{{ $spec = set $spec "priorityClassName" (tpl . $) }}{{ end -}}
{{- with .nodeSelector }}{{ $spec = set $spec "nodeSelector" . }}{{ end -}}
{{- if .spreadOverZones -}}
{{- $selector := dict "matchLabels" (dict "app.kubernetes.io/name" $name "app.kubernetes.io/component" "rabbitmq") -}}
{{- $constraint := dict "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" .spreadOverZones "maxSkew" 1 "labelSelector" $selector "nodeTaintsPolicy" "Honor" -}}
{{- $spec = set $spec "topologySpreadConstraints" (list $constraint) -}}
{{- end -}}
{{- if $spec -}}
{{- $spec = set $spec "containers" list -}}
{{- $all = set $all "statefulSet" (dict "spec" (dict "template" (dict "spec" $spec))) -}}
{{- end -}}
{{- with .managementNodePort -}}
{{- $port := dict "name" "management" "protocol" "TCP" "port" 15672 "nodePort" . -}}
{{- $all = set $all "service" (dict "spec" (dict "ports" (list $port))) -}}
{{- end -}}
{{ mergeOverwrite $all (deepCopy .override) | toYaml }}
{{- end -}}
{{- end -}}
