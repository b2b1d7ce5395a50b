{{/* Name of all objects: RELEASE when it contains the chart's name, else RELEASE-nearshore. With its suffixes it fits a CronJob. */}}
{{- define "nearshore.fullname" -}}
{{- $full := ternary .Release.Name (printf "%s-nearshore" .Release.Name) (contains "nearshore" .Release.Name) -}}
{{ .Values.fullnameOverride | default $full | trunc 46 | trimSuffix "-" }}
{{- end }}

{{- define "nearshore.selectorLabels" -}}
app.kubernetes.io/name: nearshore
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What selects the serving pods, and not those that index or test. */}}
{{- define "nearshore.serverSelector" -}}
{{ include "nearshore.selectorLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "nearshore.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "nearshore.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "nearshore.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "nearshore.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "nearshore.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{- define "nearshore.port" -}}
50051
{{- end }}

{{/* "true" in the cluster shape, empty in the embedded one. */}}
{{- define "nearshore.isCluster" -}}
{{ if .Values.store.url.secretName }}true{{ end }}
{{- end }}

{{- define "nearshore.drainSeconds" -}}
{{ ternary (int .Values.server.drainSeconds) 0 (eq (include "nearshore.isCluster" .) "true") }}
{{- end }}

{{/* Shortest time from SIGTERM to SIGKILL that lets the server drain, finish its calls and close its files. */}}
{{- define "nearshore.shutdownSeconds" -}}
{{ add (int (include "nearshore.drainSeconds" .)) (int .Values.server.graceSeconds) 15 }}
{{- end }}

{{/*
The number of replicas that the Deployment names. With an autoscaler none, for the number is the autoscaler's: a named one
would be set back by each upgrade or rollback. But where Helm, or whoever else applies on the server, owns the number
because it was named before, Kubernetes would take 1 for a name that is gone. Then the present one is named, within the
autoscaler's bounds, until the autoscaler changes it and owns it.
*/}}
{{- define "nearshore.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{ .Values.replicas | int64 }}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "nearshore.fullname" .) -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- if and (eq .operation "Apply") (hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas") -}}
{{- $bounds := $.Values.autoscaling -}}
{{ max $bounds.minReplicas (min $bounds.maxReplicas $live.spec.replicas) }}
{{- break -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
