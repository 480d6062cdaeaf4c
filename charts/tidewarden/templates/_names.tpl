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

{{/* operator.yaml: what the operator is told. */}}
{{- define "tidewarden.settings" -}}
image: {{ include "tidewarden.image" . }}
imagePullPolicy: {{ .Values.global.image.pullPolicy }}
imagePullSecrets: {{ toJson .Values.global.imagePullSecrets }}
namespace: {{ .Release.Namespace }}
namespaces: {{ toJson .Values.global.watchNamespaces }}
kafka:
  bootstrapServers: {{ include "tidewarden.kafka" . | quote }}
  securityProtocol: {{ .Values.kafka.securityProtocol }}
  saslMechanism: {{ .Values.kafka.saslMechanism }}
  replicationFactor: {{ .Values.kafka.replicationFactor }}
  {{- with .Values.kafka.secret }}
  secretRef: {name: {{ . }}}
  secretDir: /var/run/tidewarden/kafka
  {{- end }}
{{- with include "tidewarden.elasticsearch" . }}
elasticsearch:
  url: {{ . }}
  replicas: {{ $.Values.elasticsearch.replicas }}
  {{- with $.Values.elasticsearch.secret }}
  secretRef: {name: {{ . }}}
  secretDir: /var/run/tidewarden/elasticsearch
  {{- end }}
{{- end }}
{{- with include "tidewarden.prometheus" . }}
prometheusUrl: {{ . }}
{{- end }}
{{- with include "tidewarden.alertmanager" . }}
alertmanagerUrl: {{ . }}
{{- end }}
{{- with .Values.workloads }}
resources: {{ toJson . }}
{{- end }}
{{- end }}

{{/* What every pod that acts for the operator mounts: its settings, its credentials, room for scratch files. */}}
{{- define "tidewarden.mounts" -}}
- {name: settings, mountPath: /etc/tidewarden, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /var/cache/tidewarden}
{{- if .Values.kafka.secret }}
- {name: kafka-secret, mountPath: /var/run/tidewarden/kafka, readOnly: true}
{{- end }}
{{- if .Values.elasticsearch.secret }}
- {name: elasticsearch-secret, mountPath: /var/run/tidewarden/elasticsearch, readOnly: true}
{{- end }}
{{- end }}

{{- define "tidewarden.volumes" -}}
- {name: settings, configMap: {name: {{ include "tidewarden.name" . }}}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
- {name: cache, emptyDir: {sizeLimit: 128Mi}}
{{- with .Values.kafka.secret }}
- {name: kafka-secret, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- with .Values.elasticsearch.secret }}
- {name: elasticsearch-secret, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end }}
