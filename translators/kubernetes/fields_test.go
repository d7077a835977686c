// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"fairlead.io/fairlead/translators/translatortest"
)

// Words of the ledger.
const (
	used     = "used"
	reported = "refused or approximated, with a diagnostic"
	dns      = "names: the cluster's DNS reads it"
	alloc    = "read by who hands out addresses and ports; the result counts"
	outside  = "about traffic from outside, which stays kube-proxy's; policy holds for it"
	noted    = outside + ", and a note says so"
	kubelet  = "about running containers, not about traffic"
	decided  = "part of readiness, which counts"
	near     = "used: Local gives a node's clients its own endpoints or none, whatever plane leads them there"
	hinted   = "by hints of EndpointSlices, which Kubernetes writes for it; Istio's plane reads it by itself. Without slices, a diagnostic"
	hints    = "used under kube-proxy's conditions: every ready endpoint has them, and one is for the node or its zone. What Istio's plane steers, and a policy with an order of its own, goes by that instead"
)

// ledger says for every field what becomes of it.
var ledger = map[reflect.Type]map[string]string{
	reflect.TypeFor[corev1.ServiceSpec](): {
		"ports": used, "selector": used, "clusterIP": used, "clusterIPs": used, "type": used, "sessionAffinity": used,
		"sessionAffinityConfig": used, "publishNotReadyAddresses": used, "externalIPs": noted, "loadBalancerIP": outside,
		"loadBalancerSourceRanges": outside, "externalName": "with spec.type, which is refused then", "externalTrafficPolicy": outside,
		"healthCheckNodePort": outside, "ipFamilies": alloc, "ipFamilyPolicy": alloc, "allocateLoadBalancerNodePorts": outside,
		"loadBalancerClass": outside, "internalTrafficPolicy": near, "trafficDistribution": hinted,
	},
	reflect.TypeFor[corev1.ServicePort](): {
		"name": used, "protocol": used, "appProtocol": used, "port": used, "targetPort": used, "nodePort": outside,
	},
	reflect.TypeFor[discoveryv1.EndpointSlice](): {"addressType": used, "endpoints": used, "ports": used},
	reflect.TypeFor[discoveryv1.Endpoint](): {
		"addresses": used, "conditions": used, "hostname": dns, "targetRef": "the pod is found by its address",
		"deprecatedTopology": "from before v1", "nodeName": "used where the service is for its node alone; else the pod's own counts", "zone": "where the pod's node is counts",
		"hints": hints,
	},
	reflect.TypeFor[discoveryv1.EndpointConditions](): {"ready": used, "serving": decided, "terminating": decided},
	reflect.TypeFor[discoveryv1.EndpointPort]():       {"name": used, "protocol": used, "port": used, "appProtocol": "the service's own counts"},
	reflect.TypeFor[corev1.PodSpec](): {
		"initContainers": used, "containers": used, "nodeName": used, "serviceAccountName": used, "serviceAccount": used, "hostNetwork": used,
		"dnsPolicy": dns, "dnsConfig": dns, "hostAliases": dns, "hostname": dns, "subdomain": dns, "setHostnameAsFQDN": dns, "hostnameOverride": dns,
		"readinessGates": decided, "automountServiceAccountToken": used,
	},
	reflect.TypeFor[corev1.PodStatus](): {
		"podIP": used, "podIPs": used, "phase": used, "conditions": used,
	},
	reflect.TypeFor[corev1.Container](): {
		"name": used, "ports": used, "livenessProbe": used, "readinessProbe": used, "startupProbe": used, "lifecycle": used, "restartPolicy": used,
	},
	reflect.TypeFor[corev1.ContainerPort](): {
		"name": used, "containerPort": used, "protocol": used, "hostPort": "who maps it connects to the pod, where policy applies",
		"hostIP": "with hostPort",
	},
}

// harmless are fields of pods and containers that have nothing to do with traffic.
// A field that a newer library adds is in neither list, and the test asks for it.
var harmless = map[reflect.Type][]string{
	reflect.TypeFor[corev1.PodSpec](): {
		"volumes", "ephemeralContainers", "restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "nodeSelector",
		"automountServiceAccountToken", "hostPID", "hostIPC", "shareProcessNamespace", "securityContext", "imagePullSecrets", "affinity",
		"schedulerName", "tolerations", "priorityClassName", "priority", "runtimeClassName", "enableServiceLinks", "preemptionPolicy",
		"overhead", "topologySpreadConstraints", "os", "hostUsers", "schedulingGates", "resourceClaims", "resources", "schedulingGroup", "evictionResponders",
	},
	reflect.TypeFor[corev1.PodStatus](): {
		"observedGeneration", "message", "reason", "nominatedNodeName", "hostIP", "hostIPs", "startTime", "initContainerStatuses",
		"containerStatuses", "qosClass", "ephemeralContainerStatuses", "resize", "resourceClaimStatuses", "extendedResourceClaimStatus",
		"allocatedResources", "resources", "nodeAllocatableResourceClaimStatuses", "volumeHealth",
	},
	reflect.TypeFor[corev1.Container](): {
		"image", "command", "args", "workingDir", "envFrom", "env", "resources", "resizePolicy", "restartPolicyRules", "volumeMounts",
		"volumeDevices", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin", "stdinOnce", "tty",
	},
}

func TestEveryFieldHasAnEntry(t *testing.T) {
	types := slices.SortedFunc(maps.Keys(ledger), func(a, b reflect.Type) int { return strings.Compare(a.String(), b.String()) })
	var table strings.Builder
	table.WriteString("| Type | Field | Becomes |\n|---|---|---|\n")
	for _, typ := range types {
		seen := map[string]bool{}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "metadata" {
				continue
			}
			seen[name] = true
			what, ok := ledger[typ][name]
			if !ok && slices.Contains(harmless[typ], name) {
				continue
			}
			if !ok {
				t.Errorf("%s.%s: nobody says what becomes of it", typ, name)
			}
			fmt.Fprintf(&table, "| %s | %s | %s |\n", typ.Name(), name, what)
		}
		for _, name := range append(slices.Sorted(maps.Keys(ledger[typ])), harmless[typ]...) {
			if !seen[name] {
				t.Errorf("%s has no field %s", typ, name)
			}
		}
		if harmless[typ] != nil {
			fmt.Fprintf(&table, "| %s | all others | %s |\n", typ.Name(), kubelet)
		}
	}
	translatortest.Section(t, "README.md", "fields", table.String())
}
