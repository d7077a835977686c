// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"strings"
	"testing"
)

// Values that nobody knows, or that cannot be meant, are refused with their names.
func TestValues(t *testing.T) {
	for set, want := range map[string]string{
		"agent.uplink=eth0":                        "uplink",
		"agent.whenProxyAbsent=open":               "whenProxyAbsent",
		"proxy.concurrency=-1":                     "concurrency",
		"proxy.drainTime=10":                       "drainTime",
		"mesh.istioVersion=latest":                 "istioVersion",
		"mesh.linkerdDefaultInboundPolicy=nothing": "linkerdDefaultInboundPolicy",
		"agent.maxUnavailable=0":                   "maxUnavailable",
		"image.tag=a b":                            "tag",
		"metrics.port=0":                           "port",
		"operators=2":                              "operators",
	} {
		if out, err := main.tryHelm(t.Context(), "template", release, chart, "--set", set); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", set, err, out)
		}
	}
	out, err := main.tryHelm(t.Context(), "template", release, chart, "--namespace", "other", "--set-json",
		`{"agent":{"uplinks":["eth0","vxlan0"],"cgroup":"/sys/fs/cgroup/unified","maxUnavailable":"10%"},"image":{"registry":"r.example:5000/x","tag":"v1","pullSecrets":["mine"]},
		"mesh":{"istioOutboundTrafficPolicy":"REGISTRY_ONLY","linkerdClusterNetworks":["10.0.0.0/8","fd00::/8"]},"labels":{"team":"a"},"metrics":{"enabled":true,"port":9999}}`)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"- --uplink=eth0\n        - --uplink=vxlan0\n", "- --cgroup=/sys/fs/cgroup/unified\n", "maxUnavailable: 10%", "image: r.example:5000/x/proxy:v1\n",
		"- name: mine\n", "- --istio-outbound-traffic-policy=REGISTRY_ONLY\n", "- --linkerd-cluster-networks=10.0.0.0/8,fd00::/8\n", "team: a\n", "namespace: other\n",
		"- --metrics=:9999\n", "containerPort: 9999", "prometheus.io/port: \"9999\"\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("rendered without %q", want)
		}
	}
}

// What is turned off is not asked for.
func TestValuesTakePrivileges(t *testing.T) {
	for set, gone := range map[string][]string{
		"operator.installCRDs=false": {"traffictargets.access.smi-spec.io", "resources: [customresourcedefinitions]\n  verbs: [create]"},
		"agent.cni.enabled=false":    {"name: cni-conf", "name: cni-bin", "path: /etc/cni/net.d", "path: /opt/cni/bin"},
	} {
		with, err := main.tryHelm(t.Context(), "template", release, chart)
		if err != nil {
			t.Fatalf("%v: %s", err, with)
		}
		without, err := main.tryHelm(t.Context(), "template", release, chart, "--set", set)
		if err != nil {
			t.Fatalf("%s: %v: %s", set, err, without)
		}
		for _, text := range gone {
			if !strings.Contains(with, text) || strings.Contains(without, text) {
				t.Errorf("%s: %q is there by default: %t, with it: %t", set, text, strings.Contains(with, text), strings.Contains(without, text))
			}
		}
	}
}
