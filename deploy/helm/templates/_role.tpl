{{- /* One role of the fleet: a Deployment and its disruption budget. Takes root, name, args, of (its values), keys, spec, scaled, label. */ -}}
{{- define "paceline.role" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  labels: {{ include "paceline.labels" . }}
spec:
  {{- if not .scaled }}
  replicas: {{ .of.replicas | int }}
  {{- end }}
  selector:
    matchLabels: {{ include "paceline.labels" . }}
  template:
    metadata:
      labels: {{ include "paceline.labels" . }}
      {{- if .spec }}{{ with include "paceline.spec" .root }}
      annotations:
        # New files, new pods.
        checksum/spec: {{ . | sha256sum }}
      {{- end }}{{ end }}
    spec:
      serviceAccountName: paceline
      automountServiceAccountToken: false
      enableServiceLinks: false
      # The drain (25 s) and 10 s more.
      terminationGracePeriodSeconds: 35
      {{- with .of.nodeSelector }}
      nodeSelector: {{ toJson . }}
      {{- end }}
      {{- with .of.tolerations }}
      tolerations: {{ toJson . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .name }}
          image: {{ .root.Values.image.repository }}{{ with .root.Values.image.tag }}:{{ . }}{{ end }}
          args: {{ toJson .args }}
          envFrom:
            - configMapRef: {name: paceline}
            - secretRef: {name: {{ .root.Values.secrets.servers }}}
            {{- if .keys }}
            - secretRef: {name: {{ .root.Values.secrets.providers }}}
            {{- end }}
          ports:
            - {name: http, containerPort: 9100}
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
          resources: {{ toJson .of.resources }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if .spec }}
            - {name: jobs, mountPath: /spec/jobs}
            - {name: providers, mountPath: /spec/providers}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 2Gi}}
        {{- if .spec }}
        - {name: jobs, configMap: {name: paceline-jobs}}
        - {name: providers, configMap: {name: paceline-providers}}
        {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{ include "paceline.labels" . }}
{{- end -}}

{{- define "paceline.labels" -}}
{app.kubernetes.io/name: paceline, app.kubernetes.io/component: {{ .name }}}
{{- end -}}

{{- define "paceline.spec" -}}
{{- if or .Values.jobs .Values.providers }}{{ toJson .Values.jobs }}{{ toJson .Values.providers }}{{ end -}}
{{- end -}}
