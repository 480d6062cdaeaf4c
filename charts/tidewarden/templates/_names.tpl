{{- define "tidewarden.name" -}}{{ printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" }}{{- end }}

{{- define "tidewarden.selector" -}}
app.kubernetes.io/name: tidewarden
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidewarden.labels" -}}
{{ include "tidewarden.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tidewarden.image" -}}
{{ .Values.global.image.repository }}:{{ .Values.global.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "tidewarden.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Restricted Pod Security, for every pod of this chart that runs our image. */}}
{{- define "tidewarden.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidewarden.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Addresses: what was given, or the dependency of this release. The namespace is in them, for pods elsewhere. */}}
{{- define "tidewarden.kafka" -}}
{{- if .Values.kafka.bootstrapServers -}}{{ .Values.kafka.bootstrapServers }}
{{- else if .Values.kafka.enabled -}}{{ .Release.Name }}-kafka.{{ .Release.Namespace }}.svc:9092
{{- else -}}{{ fail "kafka.enabled is false: say where Kafka is, e.g. --set kafka.bootstrapServers=kafka-0.example:9092" }}
{{- end -}}
{{- end }}

{{- define "tidewarden.elasticsearch" -}}
{{- if .Values.elasticsearch.url -}}{{ .Values.elasticsearch.url }}
{{- else if .Values.elasticsearch.enabled -}}http://{{ .Release.Name }}-elasticsearch.{{ .Release.Namespace }}.svc:9200
{{- end -}}
{{- end }}

{{- define "tidewarden.prometheus" -}}
{{- if .Values.prometheus.url -}}{{ .Values.prometheus.url }}
{{- else if .Values.prometheus.enabled -}}http://{{ .Release.Name }}-prometheus.{{ .Release.Namespace }}.svc:9090
{{- end -}}
{{- end }}

{{- define "tidewarden.alertmanager" -}}
{{- if .Values.alertmanager.url -}}{{ .Values.alertmanager.url }}
{{- else if .Values.alertmanager.enabled -}}http://{{ .Release.Name }}-alertmanager.{{ .Release.Namespace }}.svc:9093
{{- end -}}
{{- end }}

{{- define "tidewarden.settings" -}}
image: {{ include "tidewarden.image" . }}
imagePullPolicy: {{ .Values.global.image.pullPolicy }}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
namespaces: {{ toJson .Values.global.watchNamespaces }}
kafka:
  bootstrapServers: {{ include "tidewarden.kafka" . | quote }}
  securityProtocol: {{ .Values.kafka.securityProtocol }}
  saslMechanism: {{ .Values.kafka.saslMechanism }}
  replicationFactor: {{ .Values.kafka.replicationFactor }}
{{- with include "tidewarden.elasticsearch" . }}
elasticsearch:
  url: {{ . }}
  replicas: {{ $.Values.elasticsearch.replicas }}
{{- end }}
{{- with include "tidewarden.prometheus" . }}
prometheusUrl: {{ . }}
{{- end }}
{{- with include "tidewarden.alertmanager" . }}
alertmanagerUrl: {{ . }}
{{- end }}
{{- with .Values.kafka.secret }}
kafkaSecret: {{ . }}
{{- end }}
{{- with .Values.elasticsearch.secret }}
elasticsearchSecret: {{ . }}
{{- end }}
{{- with .Values.workloads }}
resources: {{ toJson . }}
{{- end }}
{{- end }}
