// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"fairlead.io/fairlead/model"
)

// Proxy is one that a namespace has of its own on the node, beside the node's.
//
// Its pods' listeners are in it and nowhere else, and so is what is judged on the way to
// them. What clients need is everybody's: a pod may dial any service.
type Proxy struct {
	Name   string `json:"name"`   // the namespace
	Memory uint64 `json:"memory"` // that it may use, in bytes
}

// proxyOf is the key of the workload's own proxy, "" if it shares the node's.
func proxyOf(w *model.Workload) string {
	if w.Proxy == nil {
		return ""
	}
	return w.Namespace
}

// ownInbound is the inbound listener of a proxy; "" of the node's.
func ownInbound(proxy string) string {
	if proxy == "" {
		return ""
	}
	return ownName(InboundListener, proxy)
}

const ownMark = "@"

func ownName(listener, proxy string) string { return listener + ownMark + proxy }

// SharedName is the name that a listener of a namespace's own proxy would have in the
// node's, and whose it is; proxy is "" if it is the node's. Clients that move from one
// proxy to the other find the same in both.
func SharedName(listener string) (shared, proxy string) {
	shared, proxy, _ = strings.Cut(listener, ownMark)
	return shared, proxy
}

// OfPort reports whether a scope or a route table, by its name, is of a local pod's port.
func OfPort(name string) bool { return strings.HasPrefix(name, "in|") }
