{{/* A ClusterRole and its binding; dict "root" . "component" … "rules" … "account" … */}}
{{- define "clientpolicy.clusterRole" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "clientpolicy.clusterName" . }}
  labels:
    {{- include "clientpolicy.labels" . | nindent 4 }}
rules:
  {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "clientpolicy.clusterName" . }}
  labels:
    {{- include "clientpolicy.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ include "clientpolicy.clusterName" . | quote }}}
subjects: [{kind: ServiceAccount, name: {{ .account }}, namespace: {{ .root.Release.Namespace }}}]
{{- end }}

{{/* A Role and its binding in each namespace; dict "root" . "component" … "namespaces" … "rules" … "account" … ["suffix" …] */}}
{{- define "clientpolicy.roles" }}
{{- $name := printf "%s-%s%s" (include "clientpolicy.fullname" .root) .component (.suffix | default "") }}
{{- range $namespace := .namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "clientpolicy.labels" $ | nindent 4 }}
rules:
  {{- toYaml $.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "clientpolicy.labels" $ | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{kind: ServiceAccount, name: {{ $.account }}, namespace: {{ $.root.Release.Namespace }}}]
{{- end }}
{{- end }}
