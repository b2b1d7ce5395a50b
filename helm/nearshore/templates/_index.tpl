{{/* The spec of an Indexed Job. Takes root, args (list), shards, claim. Numbers of a file of values are floats: int64 keeps the large ones from being written as 1e+06. */}}
{{- define "nearshore.indexJobSpec" -}}
{{- $root := .root -}}
{{- $job := $root.Values.indexJob -}}
completionMode: Indexed
completions: {{ .shards | int64 }}
parallelism: {{ .shards | int64 }}
backoffLimitPerIndex: {{ $job.retriesPerShard | int64 }}
ttlSecondsAfterFinished: {{ $job.ttlSecondsAfterFinished | int64 }}
podFailurePolicy:
  rules:
    # A request or some of the input was refused: trying again gives the same, and the other shards go on.
    - action: FailIndex
      onExitCodes:
        containerName: index
        operator: In
        values: [1, 3]
    # Wrong options or settings, no such file: no shard can do better.
    - action: FailJob
      onExitCodes:
        containerName: index
        operator: In
        values: [2, 4]
    # Evicted or preempted: not the shard's fault.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
template:
  metadata:
    labels:
      {{- include "nearshore.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: index
  spec:
    {{- include "nearshore.podSecurity" $root | nindent 4 }}
    restartPolicy: Never
    {{- with $job.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $job.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: index
        {{- include "nearshore.container" $root | nindent 8 }}
        args:
          {{- toYaml .args | nindent 10 }}
        {{- with include "nearshore.env" $root | trim }}
        env:
          {{- . | nindent 10 }}
        {{- end }}
        resources:
          {{- toYaml $job.resources | nindent 10 }}
        volumeMounts:
          {{- include "nearshore.mounts" $root | nindent 10 }}
          - name: sources
            mountPath: /sources
            readOnly: true
    volumes:
      {{- include "nearshore.tmpVolume" $root | nindent 6 }}
      {{- include "nearshore.scratchVolume" $root | nindent 6 }}
      - name: sources
        {{- if .claim }}
        persistentVolumeClaim:
          claimName: {{ .claim | quote }}
          readOnly: true
        {{- else }}
        emptyDir: {}
        {{- end }}
      {{- with $root.Values.pods.volumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}
