{{/* The pod template of the server, of both shapes. */}}
{{- define "nearshore.serverPod" -}}
{{- $cluster := include "nearshore.isCluster" . -}}
metadata:
  labels:
    {{- include "nearshore.serverSelector" . | nindent 4 }}
    {{- with .Values.pods.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: nearshore
    {{- if and .Values.metrics.enabled .Values.metrics.annotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ .Values.metrics.port | quote }}
    prometheus.io/path: /metrics
    {{- end }}
    {{- with .Values.pods.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "nearshore.podSecurity" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "nearshore.shutdownSeconds" .) | int64 }}
  {{- with .Values.pods.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.pods.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $cluster .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range .Values.topologySpread.keys }}
    - maxSkew: 1
      topologyKey: {{ . | quote }}
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "nearshore.serverSelector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: nearshore
      {{- include "nearshore.container" . | nindent 6 }}
      args: [serve]
      env:
        {{- include "nearshore.serverEnv" . | nindent 8 }}
        {{- include "nearshore.env" . | trim | nindent 8 }}
      ports:
        - name: grpc
          containerPort: {{ include "nearshore.port" . }}
        {{- if .Values.metrics.enabled }}
        - name: metrics
          containerPort: {{ .Values.metrics.port | int64 }}
        {{- end }}
      {{- include "nearshore.probes" . | nindent 6 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "nearshore.mounts" . | nindent 8 }}
  volumes:
    {{- include "nearshore.tmpVolume" . | nindent 4 }}
    {{- if or $cluster (not .Values.persistence.enabled) }}
    {{- include "nearshore.scratchVolume" . | nindent 4 }}
    {{- else if .Values.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim | quote }}
    {{- end }}
    {{- with .Values.pods.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Settings that the chart's own values decide; "nearshore.refuseOwned" keeps them out of `config`. */}}
{{- define "nearshore.serverEnv" -}}
- name: NEARSHORE_SERVER__HOST
  value: "0.0.0.0"
- name: NEARSHORE_SERVER__PORT
  value: {{ include "nearshore.port" . | quote }}
- name: NEARSHORE_SERVER__DRAIN_S
  value: {{ include "nearshore.drainSeconds" . | quote }}
- name: NEARSHORE_SERVER__GRACE_S
  value: {{ .Values.server.graceSeconds | quote }}
{{- if include "nearshore.isCluster" . }}
- name: NEARSHORE_SERVER__MAX_CONNECTION_AGE_S
  value: {{ .Values.server.maxConnectionAgeSeconds | quote }}
- name: NEARSHORE_SERVER__MAX_CONNECTION_AGE_GRACE_S
  value: {{ .Values.server.maxConnectionAgeGraceSeconds | quote }}
{{- end }}
{{- if .Values.metrics.enabled }}
- name: NEARSHORE_METRICS__PORT
  value: {{ .Values.metrics.port | quote }}
{{- end }}
{{- end }}

{{/* "liveness" is served as soon as the process answers: loading or an absent store must never cause a restart. */}}
{{- define "nearshore.probes" -}}
startupProbe:
  grpc:
    port: {{ include "nearshore.port" . }}
    service: liveness
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 300
livenessProbe:
  grpc:
    port: {{ include "nearshore.port" . }}
    service: liveness
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc:
    port: {{ include "nearshore.port" . }}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 3
{{- end }}
