// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
)

// Some address of each other node's pods, of each family: out of its ranges, or a pod's own.
func TestRemotePods(t *testing.T) {
	const others = `
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/24, "fd44:2::/64"]}
---
apiVersion: v1
kind: Node
metadata: {name: n3}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop}
spec: {nodeName: n3, containers: [{name: c}]}
status: {podIP: 10.9.3.7, podIPs: [{ip: 10.9.3.7}, {ip: "fd09::7"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: farther, namespace: shop}
spec: {nodeName: n3, containers: [{name: c}]}
status: {podIP: 10.9.3.6, podIPs: [{ip: 10.9.3.6}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop}
spec: {nodeName: n3, hostNetwork: true, containers: [{name: c}]}
status: {podIP: 10.240.0.3, podIPs: [{ip: 10.240.0.3}]}
`
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "others.yaml": others})
	r.reload(t.Context())
	if got, want := fmt.Sprint(r.remotePods()), "[10.9.3.6 10.244.2.1 fd09::7 fd44:2::1]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
