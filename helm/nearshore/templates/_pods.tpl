{{/* What the pods that serve, index and test have in common. */}}

{{- define "nearshore.podSecurity" -}}
serviceAccountName: {{ include "nearshore.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nearshore.container" -}}
image: {{ include "nearshore.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* The URL of the store, the settings of `config`, and pods.env. */}}
{{- define "nearshore.env" -}}
{{- with .Values.store.url }}
{{- if .secretName }}
- name: NEARSHORE_STORE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .secretName | quote }}
      key: {{ .secretKey | quote }}
{{- end }}
{{- end }}
{{- range $section, $settings := .Values.config }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ printf "NEARSHORE_%s__%s" (upper $section) (upper $name) }}
  {{- /* Helm reads every number as a float; toJson writes whole ones without an exponent. */}}
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.pods.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "nearshore.scratchVolume" -}}
- name: data
  emptyDir:
    sizeLimit: {{ .Values.scratch.sizeLimit | toJson }}
{{- end }}

{{- define "nearshore.tmpVolume" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.scratch.tmpSizeLimit | toJson }}
{{- end }}

{{- define "nearshore.mounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- with .Values.pods.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
