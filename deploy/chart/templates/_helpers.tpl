{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Labels that select a component's pods; they never change. */}}
{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a component's objects. */}}
{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of a component's pods. Not those of the release: a new one of the chart alone is
     no reason to replace them. */}}
{{- define "fairlead.podLabels" -}}
{{ include "fairlead.selector" . }}
{{- with merge (dict) (.own | default dict) (.root.Values.labels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image by its digest, or else by its tag: not all runtimes take both. */}}
{{- define "fairlead.image" -}}
{{- $v := .root.Values.image -}}
{{ $v.registry }}/{{ .image }}
{{- with get ($v.digests | default dict) .image }}@{{ . }}{{ else }}:{{ $v.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "fairlead.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What both programs of a node have, whose pods are on the same nodes and in their network. */}}
{{- define "fairlead.onNode" -}}
hostNetwork: true
# A node without it has no routes: it is as important as what gives the node its network.
priorityClassName: system-node-critical
{{- include "fairlead.pullSecrets" . }}
{{- with .Values.agent.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agent.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- include "fairlead.tolerations" (dict "root" . "own" .Values.agent.tolerations) }}
{{- end }}

{{/* What is needed to take the startup taint off tolerates it. */}}
{{- define "fairlead.tolerations" -}}
{{- $all := default list .own }}
{{- with .root.Values.agent.startupTaint }}
{{- $all = append $all (dict "key" . "operator" "Exists") }}
{{- end }}
{{- with $all }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Flags that agent and operator share: what is meant by the objects. */}}
{{- define "fairlead.meshFlags" -}}
- {{ print "--cluster-domain=" .Values.clusterDomain | quote }}
- {{ print "--trust-domain=" .Values.trustDomain | quote }}
{{- with .Values.mesh }}
- {{ print "--default-mode=" .defaultMode | quote }}
{{- with .istioVersion }}
- {{ print "--istio-version=" . | quote }}
{{- end }}
{{- with .istioOutboundTrafficPolicy }}
- {{ print "--istio-outbound-traffic-policy=" . | quote }}
{{- end }}
{{- with .istioProtocolDetectionTimeout }}
- {{ print "--istio-protocol-detection-timeout=" . | quote }}
{{- end }}
{{- if .gatewayRequireGrants }}
- --gateway-require-grants
{{- end }}
- {{ print "--linkerd-control-plane-namespace=" .linkerdControlPlaneNamespace | quote }}
- {{ print "--linkerd-default-inbound-policy=" .linkerdDefaultInboundPolicy | quote }}
{{- with .linkerdClusterNetworks }}
- {{ print "--linkerd-cluster-networks=" (join "," .) | quote }}
{{- end }}
{{- end }}
{{- end }}
