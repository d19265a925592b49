{{- define "clientpolicy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "clientpolicy.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "clientpolicy.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "clientpolicy.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* dict "root" . "component" "authz". Never changes between versions: selectors cannot. */}}
{{- define "clientpolicy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clientpolicy.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "clientpolicy.labels" -}}
{{ include "clientpolicy.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: clientpolicy
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* name, namespace and labels; dict "root" . "component" "authz" ["suffix" "-headless"] */}}
{{- define "clientpolicy.metadata" -}}
name: {{ include "clientpolicy.fullname" .root }}-{{ .component }}{{ .suffix }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "clientpolicy.labels" . | nindent 2 }}
{{- end }}

{{/* Cluster-wide objects carry the namespace in their name, so that two releases do not share one. */}}
{{- define "clientpolicy.clusterName" -}}
{{ .root.Release.Namespace }}:{{ include "clientpolicy.fullname" .root }}-{{ .component }}
{{- end }}

{{- define "clientpolicy.image" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
image: {{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{- define "clientpolicy.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create }}{{ $account.name | default (printf "%s-%s" (include "clientpolicy.fullname" .root) .component) }}
{{- else if $account.name }}{{ $account.name }}
{{- else }}{{ fail (printf "\n\n%s.serviceAccount.create is false: expected the name of an account; the namespace's default one is everybody's\n" .component) }}{{ end }}
{{- end }}

{{/* Whether the cluster is one of OpenShift's: "true" or nothing. */}}
{{- define "clientpolicy.openshift" -}}
{{- if or (eq (toString .Values.openshift) "true") (and (eq (toString .Values.openshift) "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}true{{ end }}
{{- end }}

{{/* What Pod Security calls restricted. OpenShift gives each namespace users of its own, and refuses any other. */}}
{{- define "clientpolicy.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- if not (include "clientpolicy.openshift" .) }}
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every container has; why its process ended stands in its log, and so in the pod's status. */}}
{{- define "clientpolicy.container" -}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* dict "root" . "component" "authz": over nodes and zones, those of one version alone, else a rollout would count twice. */}}
{{- define "clientpolicy.spread" -}}
{{- $who := dict "root" .root "component" .component -}}
topologySpreadConstraints:
  {{- with (index .root.Values .component).topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "clientpolicy.selectorLabels" $who | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* dict "root" . "component" "authz": a PodDisruptionBudget, and nothing where its values say so */}}
{{- define "clientpolicy.disruptionBudget" -}}
{{- $pdb := (index .root.Values .component).pdb -}}
{{- if $pdb.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "clientpolicy.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ $pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "clientpolicy.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "clientpolicy.placement" -}}
{{- range $key := list "affinity" "nodeSelector" "tolerations" }}
{{- with index $ $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/*
An annotation that changes with the Secrets that a process reads at its start alone, where Helm can see them; dict "root" .
"env" … "names" …. Their versions: a digest of what they hold could be tried out by whoever sees the pod.
*/}}
{{- define "clientpolicy.secretsRead" -}}
{{- $names := .names -}}
{{- range .env }}{{ with ((.valueFrom | default dict).secretKeyRef | default dict).name }}{{ $names = append $names . }}{{ end }}{{ end -}}
{{- $found := list -}}
{{- range $names | uniq | sortAlpha }}
{{- with lookup "v1" "Secret" $.root.Release.Namespace . }}{{ $found = append $found (list .metadata.name .metadata.uid .metadata.resourceVersion) }}{{ end -}}
{{- end -}}
{{- with $found }}checksum/secrets: {{ toJson . | sha256sum }}{{ end -}}
{{- end }}

{{/* Ports of Redis, as JSON: those of its URL, and those of the values. */}}
{{- define "clientpolicy.redis.ports" -}}
{{- $url := dig "store" "url" "" (include "clientpolicy.authz.config" . | fromYaml) -}}
{{- $scheme := regexFind "^[a-z+]+" $url -}}
{{- $ports := list -}}
{{- if has $scheme (list "redis" "rediss" "redis+sentinel" "redis+cluster") -}}
{{- range regexReplaceAll "^[a-z+]+://([^/?]*@)?([^/?]*).*$" $url "${2}" | splitList "," -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "26379" "6379" (eq $scheme "redis+sentinel")) | int) -}}
{{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.redisPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- toJson (uniq $ports) -}}
{{- end }}

{{/* Which trial parts there are: "true" or nothing. */}}
{{- define "clientpolicy.trial.redis" -}}
{{- if and .Values.trial.enabled .Values.trial.redis.enabled (not .Values.redis.url) (not .Values.redis.existingSecret.name) }}true{{ end }}
{{- end }}
{{- define "clientpolicy.trial.gateway" -}}
{{- if and .Values.trial.enabled .Values.trial.gateway.enabled }}true{{ end }}
{{- end }}
{{- define "clientpolicy.trial.services" -}}
{{- if and .Values.trial.enabled .Values.trial.services.enabled }}true{{ end }}
{{- end }}

{{/* Two replicas that count for themselves would allow twice the quota, so a release without a Redis is refused. */}}
{{- define "clientpolicy.required" -}}
{{- if not (or .Values.redis.url .Values.redis.existingSecret.name (include "clientpolicy.trial.redis" .)) }}
{{- fail "\n\nQuotas are counted in Redis. Choose one of:\n  redis.url=redis://host:6379/0            an existing Redis\n  redis.existingSecret.name=NAME           a Secret with its URL under the key `url`\n  trial.enabled=true                       a small one without persistence, for trials only\n" }}
{{- end }}
{{- if and .Values.redis.url .Values.redis.existingSecret.name }}
{{- fail "\n\nredis.url and redis.existingSecret.name are both set: expected one of them\n" }}
{{- end }}
{{- if regexMatch "^[a-z+]+://[^/@]*:[^/@]*@" .Values.redis.url }}
{{- fail "\n\nredis.url holds a password, and would stand in a ConfigMap: expected redis.passwordSecret.name, a Secret with the password under the key `password`, or redis.existingSecret.name, a Secret with the URL under the key `url`\n" }}
{{- end }}
{{- if and .Values.redis.passwordSecret.name (not .Values.redis.url) }}
{{- fail "\n\nredis.passwordSecret.name without redis.url: expected the URL without its password there\n" }}
{{- end }}
{{- if eq (include "clientpolicy.serviceAccountName" (dict "root" . "component" "authz")) (include "clientpolicy.serviceAccountName" (dict "root" . "component" "operator")) }}
{{- fail "\n\nauthz.serviceAccount and operator.serviceAccount are one account: expected two, authz has no business with Secrets\n" }}
{{- end }}
{{- if gt (int .Values.authz.autoscaling.minReplicas) (int .Values.authz.autoscaling.maxReplicas) }}
{{- fail "\n\nauthz.autoscaling.minReplicas is greater than maxReplicas\n" }}
{{- end }}
{{- if and (include "clientpolicy.trial.gateway" .) (not (include "clientpolicy.trial.services" .)) }}
{{- fail "\n\ntrial.gateway.enabled without trial.services.enabled: the trial gateway leads to the trial FHIR API and nowhere else\n" }}
{{- end }}
{{- end }}

{{/* Where the CAs of issued certificates are mounted, as JSON: the operator's first. */}}
{{- define "clientpolicy.authz.clientCa" -}}
{{- $files := list "/etc/clientpolicy/trust/ca.crt" -}}
{{- range $place, $_ := .Values.authz.clientCas }}{{ $files = append $files (printf "/etc/clientpolicy/client-ca-%d/ca.crt" $place) }}{{ end -}}
{{- dict "files" (ternary (first $files) $files (eq (len $files) 1)) | toJson -}}
{{- end }}

{{- define "clientpolicy.authz.config" -}}
{{- $own := dict
  "listen" (dict "grpc" "[::]:9191" "ops" "[::]:9192" "maxConnectionAge" "10m")
  "policies" (dict "source" "kubernetes" "namespaces" .Values.authz.namespaces)
  "identity" (dict "clientCa" (include "clientpolicy.authz.clientCa" . | fromJson).files)
  "quota" (dict "replicas" (int (ternary .Values.authz.autoscaling.minReplicas .Values.authz.replicas .Values.authz.autoscaling.enabled)))
-}}
{{- with .Values.ceilings }}{{ $_ := set $own "ceilings" . }}{{ end }}
{{- if .Values.redis.url }}{{ $_ := set $own "store" (dict "url" .Values.redis.url) }}{{ end }}
{{- if .Values.redis.passwordSecret.name }}{{ $_ := set $own.store "passwordFile" "/etc/clientpolicy/redis/password" }}{{ end }}
{{- if .Values.authz.tls.existingSecret }}
{{- $tls := dict "cert" "/etc/clientpolicy/tls/tls.crt" "key" "/etc/clientpolicy/tls/tls.key" -}}
{{- if .Values.authz.tls.mutual }}{{ $_ := set $tls "clientCa" "/etc/clientpolicy/tls/ca.crt" }}{{ end }}
{{- $_ := set $own.listen "tls" $tls }}
{{- end }}
{{- if include "clientpolicy.trial.services" . }}
{{- $trial := .Values.trial.services -}}
{{- $issuer := dict "name" "trial" "issuer" $trial.issuer "audiences" (list $trial.audience) "algorithms" (list "ES256")
  "jwksUri" (printf "https://%s-trial.%s.svc:8081/jwks" (include "clientpolicy.fullname" .) .Release.Namespace) -}}
{{- $_ := set $own "issuers" (list $issuer) }}
{{- end }}
{{- $config := mustMergeOverwrite (deepCopy $own) (deepCopy .Values.authz.config) }}
{{- if and $own.issuers .Values.authz.config.issuers }}
{{- $_ := set $config "issuers" (concat $own.issuers .Values.authz.config.issuers) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "clientpolicy.operator.config" -}}
{{- $own := dict
  "namespace" .Release.Namespace
  "listen" (dict "ops" "[::]:9193")
  "watch" (dict "namespaces" .Values.operator.namespaces)
  "leader" (dict "election" "on")
-}}
{{- with .Values.ceilings }}{{ $_ := set $own "ceilings" . }}{{ end }}
{{- toYaml (mustMergeOverwrite $own (deepCopy .Values.operator.config)) }}
{{- end }}

{{/* Whether helm test may have a client of its own in the release's namespace: "true" or nothing. */}}
{{- define "clientpolicy.test.client" -}}
{{- $here := .Release.Namespace -}}
{{- $named := not .Values.ceilings -}}
{{- range .Values.ceilings }}{{ if has $here .namespaces }}{{ $named = true }}{{ end }}{{ end }}
{{- range list .Values.authz.namespaces .Values.operator.namespaces }}{{ if and . (not (has $here .)) }}{{ $named = false }}{{ end }}{{ end }}
{{- if $named }}true{{ end }}
{{- end }}

{{/* A first policy that the values let somebody write: within the first ceiling, in a namespace that is served. */}}
{{- define "clientpolicy.sample" -}}
{{- $ceiling := first (append .Values.ceilings dict) -}}
{{- $namespace := first ($ceiling.namespaces | default (list "partners")) -}}
{{- $namespace = ternary "partners" ($namespace | replace "*" "one") (eq $namespace "*") -}}
{{- $clientId := first ($ceiling.clientIds | default (list "my-partner")) -}}
{{- $clientId = ternary "my-partner" ($clientId | replace "*" "one") (eq $clientId "*") -}}
{{- $uri := "" -}}
{{- range $ceiling.sanPrefixes | default (list "spiffe://healthtech.dev/client/") -}}
{{- if and (contains ":" .) (not $uri) }}{{ $uri = print . $clientId }}{{ end -}}
{{- end -}}
{{- $scopes := list -}}
{{- range $ceiling.scopes | default (list "patient/Patient.read" "patient/Observation.read") -}}
{{- if regexMatch "^(patient|user|system)/" . }}{{ $scopes = append $scopes . }}{{ end -}}
{{- end -}}
{{- $requests := min 10 (int ($ceiling.requestsPerSecond | default 10)) -}}
namespace: {{ first (append .Values.operator.namespaces $namespace) | quote }}
clientId: {{ $clientId | quote }}
mode: {{ first ($ceiling.modes | default (list "Enforce")) }}
uri: {{ $uri | quote }}
scopes: {{ toJson $scopes }}
requests: {{ $requests }}
burst: {{ mul 2 $requests }}
{{- end }}
