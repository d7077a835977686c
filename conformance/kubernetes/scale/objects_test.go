// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

type m = map[string]any

// services are SERVICES, for a look at how figures grow.
var services, policies = scale(), scale()

func scale() int {
	if n, err := strconv.Atoi(os.Getenv("SERVICES")); err == nil && n > 0 {
		return n
	}
	return 2000
}

const (
	perService = 5  // endpoints, each of a pod of its own
	namespaces = 20 // that these are in
	absent     = 40 // nodes that do not exist, with agents that do not either
	used       = 10 // services beside these that there are from the start, and requests for

	usedIn   = "scale-used"
	systemIn = "fairlead-system"
)

// nodes are those that exist.
var nodes = []string{"node-1", "node-2"}

const (
	istioSecurity = "/apis/security.istio.io/v1/namespaces/"
	istioNetwork  = "/apis/networking.istio.io/v1/namespaces/"
	slicesOf      = "/apis/discovery.k8s.io/v1/namespaces/"
	leases        = "/apis/coordination.k8s.io/v1/namespaces/" + systemIn + "/leases"
)

func namespace(name string) m {
	return m{"metadata": m{"name": name, "labels": m{"istio-injection": "enabled"}}}
}

// service has no selector: its EndpointSlice is written here, as it is by Kubernetes'
// controller, which would take minutes.
func service(name string) m {
	return m{"metadata": m{"name": name}, "spec": m{"ports": []m{{"name": "http", "port": 80, "targetPort": 8080}}}}
}

// at is a pod's name, node, and address.
type at struct{ pod, node, address string }

func endpoints(pods []at, ready func(at) bool) []m {
	var out []m
	for _, p := range pods {
		ok := ready(p)
		out = append(out, m{"addresses": []string{p.address}, "conditions": m{"ready": ok, "serving": ok, "terminating": false},
			"nodeName": p.node, "targetRef": m{"kind": "Pod", "name": p.pod}})
	}
	return out
}

func all(at) bool { return true }

func slice(service string, pods []at) m {
	return m{"metadata": m{"name": service + "-1", "labels": m{"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "scale"}},
		"addressType": "IPv4", "ports": []m{{"name": "http", "port": 8080, "protocol": "TCP"}}, "endpoints": endpoints(pods, all)}
}

// rules lets an account send requests of one method.
func rules(namespace, account, method string) []m {
	return []m{{"from": []m{{"source": m{"principals": []string{"cluster.local/ns/" + namespace + "/sa/" + account}}}},
		"to": []m{{"operation": m{"methods": []string{method}}}}}}
}

// policy governs the pods of one app.
func policy(namespace, app string) m {
	return m{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": m{"name": app},
		"spec": m{"selector": m{"matchLabels": m{"app": app}}, "rules": rules(namespace, "default", "GET")}}
}

// routes of a service, that write a header into what it answers.
func routes(service, said string) []m {
	return []m{{"headers": m{"response": m{"set": m{"x-said": said}}}, "route": []m{{"destination": m{"host": service}}}}}
}

func virtualService(service string) m {
	return m{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": m{"name": service},
		"spec": m{"hosts": []string{service}, "http": routes(service, "nothing")}}
}

// realPod is a pod of a node that exists.
func realPod(name, app, node string, command ...string) m {
	container := m{"name": "main", "image": "fairlead.local/lab:1", "imagePullPolicy": "Never",
		"env":       []m{{"name": "FAIRLEAD_POD", "value": fmt.Sprintf(`{"pod": %q, "node": %q}`, name, node)}},
		"resources": m{"requests": m{"cpu": "1m", "memory": "8Mi"}}}
	if len(command) > 0 {
		container["command"] = command
	}
	return m{"metadata": m{"name": name, "labels": m{"app": app}}, "spec": m{"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": []m{container}}}
}

// absentPod is a pod of a node that does not exist, and absentStatus says that it runs.
func absentPod(name, app, node string) m {
	return m{"metadata": m{"name": name, "labels": m{"app": app, "pod-template-hash": "5d4f8c7b9"}},
		"spec": m{"nodeName": node, "tolerations": []m{{"operator": "Exists"}},
			"containers": []m{{"name": "main", "image": "fairlead.local/lab:1", "ports": []m{{"containerPort": 8080}}}}}}
}

func absentStatus(address string) m {
	now := time.Now().UTC().Format(time.RFC3339)
	return m{"status": m{"phase": "Running", "podIP": address, "podIPs": []m{{"ip": address}}, "startTime": now,
		"conditions": []m{{"type": "Ready", "status": "True", "lastTransitionTime": now}, {"type": "ContainersReady", "status": "True", "lastTransitionTime": now}}}}
}

func absentName(i int) string { return fmt.Sprintf("absent-%d", i) }

func absentNode(i int) m {
	return m{"metadata": m{"name": absentName(i)}, "status": m{"addresses": []m{{"type": "InternalIP", "address": fmt.Sprintf("10.241.0.%d", i+1)}}}}
}

// absentLease is what an agent of such a node would write.
func absentLease(i int, nodeUID string) m {
	return m{"metadata": m{"name": absentName(i), "labels": m{"app.kubernetes.io/name": "fairlead", "app.kubernetes.io/component": "agent"},
		"annotations":     m{"fairlead.io/node-uid": nodeUID, "fairlead.io/revision": "00112233445566778899aabbccddeeff"},
		"ownerReferences": []m{{"apiVersion": "v1", "kind": "Node", "name": absentName(i), "uid": nodeUID}}},
		"spec": m{"holderIdentity": absentName(i) + "_00112233", "leaseDurationSeconds": 15, "acquireTime": microNow(), "renewTime": microNow()}}
}

func microNow() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// beat renews the Leases of the absent nodes as often as their agents would, until the
// context ends.
func (w *world) beat(ctx context.Context) {
	every := time.NewTicker(renewEvery / absent)
	defer every.Stop()
	for i := 0; ; i = (i + 1) % absent {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if err := w.api.patch(ctx, leases+"/"+absentName(i), m{"spec": m{"renewTime": microNow()}}); err != nil && ctx.Err() == nil {
			w.b.Errorf("renew a Lease: %v", err)
			return
		}
	}
}

// renewEvery is how often an agent of the chart renews its Lease.
const renewEvery = 5 * time.Second
