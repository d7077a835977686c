// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"

	"fairlead.io/fairlead/translators/objects"
)

// lastApplied is kubectl's copy of the object within the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// metadata that means something to a translator, or to Fairlead's bookkeeping.
var metadata = []string{"name", "namespace", "labels", "annotations", "uid", "creationTimestamp", "deletionTimestamp"}

// shape says which fields are kept: those that are named, each as its own shape says, nil
// being whole. A list's shape is that of its elements.
type shape map[string]shape

// container is what is read of one: see the table in translators/kubernetes/README.md.
var container = shape{"name": nil, "ports": nil, "livenessProbe": nil, "readinessProbe": nil, "startupProbe": nil,
	"lifecycle": nil, "restartPolicy": nil}

// shapes are of Kubernetes' own kinds that hold much more than is read. Kinds that are not
// here are kept whole but for their status.
var shapes = map[objects.Kind]shape{
	objects.NamespaceKind: {},
	objects.LeaseKind:     {}, // who renews it and when is told apart, see beats.go
	objects.NodeKind: {
		"spec":   {"podCIDR": nil, "podCIDRs": nil},
		"status": {"addresses": nil},
	},
	objects.PodKind: {
		"spec": {"nodeName": nil, "serviceAccountName": nil, "serviceAccount": nil, "hostNetwork": nil,
			"containers": container, "initContainers": container},
		"status": {"phase": nil, "podIP": nil, "podIPs": nil, "conditions": {"type": nil, "status": nil}},
	},
}

// statuses are those that are read of kinds which are otherwise kept whole.
var statuses = map[objects.Kind]shape{
	{Group: "networking.istio.io", Kind: "ServiceEntry"}: {"addresses": nil}, // that Istio has given out
}

// trim cuts an object down to what is read, in place: what an API server adds by itself,
// who wrote which field when, kubectl's copy, and status where nothing reads it. So an
// object of which nothing that counts has changed is equal to what it was.
func trim(k objects.Kind, body map[string]any) {
	if meta, ok := body["metadata"].(map[string]any); ok {
		for name := range meta {
			if !slices.Contains(metadata, name) {
				delete(meta, name)
			}
		}
		if notes, ok := meta["annotations"].(map[string]any); ok {
			delete(notes, lastApplied)
		}
	}
	s, known := shapes[k]
	if !known {
		if status, ok := body["status"]; ok && statuses[k] != nil {
			statuses[k].keep(status)
		} else {
			delete(body, "status")
		}
		return
	}
	for name, v := range body {
		switch within, ok := s[name]; {
		case name == "apiVersion" || name == "kind" || name == "metadata":
		case !ok:
			delete(body, name)
		default:
			within.keep(v)
		}
	}
}

// keep cuts a value down to a shape.
func (s shape) keep(v any) {
	if s == nil {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			s.keep(item)
		}
	case map[string]any:
		for name, field := range v {
			within, ok := s[name]
			if !ok {
				delete(v, name)
				continue
			}
			within.keep(field)
		}
	}
}
