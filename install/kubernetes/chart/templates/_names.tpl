{{- define "heddle.name" -}}
{{- if eq .Values.revision "default" }}heddle-controlplane{{ else }}heddle-controlplane-{{ .Values.revision }}{{ end -}}
{{- end -}}
{{- define "heddle.labels" -}}
app.kubernetes.io/name: heddle-controlplane
app.kubernetes.io/instance: {{ include "heddle.name" . }}
app.kubernetes.io/part-of: heddle
heddle.dev/rev: {{ .Values.revision }}
{{- end -}}
{{- define "heddle.selector" -}}
app.kubernetes.io/instance: {{ include "heddle.name" . }}
{{- end -}}
