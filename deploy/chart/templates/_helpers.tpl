{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Labels that select a component's pods; they never change. */}}
{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a component's objects. */}}
{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
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
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "fairlead.image" -}}
{{ .root.Values.image.registry }}/{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "fairlead.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
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
{{- with .Values.agent.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Flags that agent and operator share: what is meant by the objects. */}}
{{- define "fairlead.meshFlags" -}}
- --cluster-domain={{ .Values.clusterDomain }}
- --trust-domain={{ .Values.trustDomain }}
{{- with .Values.mesh }}
- --default-mode={{ .defaultMode }}
{{- with .istioVersion }}
- --istio-version={{ . }}
{{- end }}
{{- with .istioOutboundTrafficPolicy }}
- --istio-outbound-traffic-policy={{ . }}
{{- end }}
{{- with .istioProtocolDetectionTimeout }}
- --istio-protocol-detection-timeout={{ . }}
{{- end }}
{{- if .gatewayRequireGrants }}
- --gateway-require-grants
{{- end }}
- --linkerd-control-plane-namespace={{ .linkerdControlPlaneNamespace }}
- --linkerd-default-inbound-policy={{ .linkerdDefaultInboundPolicy }}
{{- with .linkerdClusterNetworks }}
- --linkerd-cluster-networks={{ join "," . }}
{{- end }}
{{- end }}
{{- end }}
