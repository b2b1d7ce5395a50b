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
