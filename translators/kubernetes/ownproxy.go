// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// What a namespace's own proxy may use: an Envoy that has nothing to do needs about half
// of the least, and the usual is enough for some thousand services in use.
const (
	leastProxyMemory = 128 << 20
	usualProxyMemory = 512 << 20
)

// ownProxy is what a namespace asks for; nil: nothing, or its object is not there. What is
// not understood of the memory leaves the usual bound, never none.
func ownProxy(ns *objects.Object) *model.OwnProxy {
	if ns == nil || ns.Annotations[ProxyKey] != ProxyOwn {
		return nil
	}
	memory, err := proxyMemory(ns.Annotations[ProxyMemoryKey])
	if err != nil {
		memory = usualProxyMemory
	}
	return &model.OwnProxy{Memory: memory}
}

func proxyMemory(text string) (uint64, error) {
	if text == "" {
		return usualProxyMemory, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a quantity", text)
	}
	n, ok := q.AsInt64()
	if !ok || n < leastProxyMemory {
		return 0, fmt.Errorf("%s is less than an Envoy needs", text)
	}
	return uint64(n), nil
}

func reportProxy(o *objects.Object, rep *report) {
	own := word(o, ProxyKey, rep, ProxyOwn, ProxyShared) == ProxyOwn
	text, said := o.Annotations[ProxyMemoryKey]
	if !said {
		return
	}
	field := `metadata.annotations["` + ProxyMemoryKey + `"]`
	if _, err := proxyMemory(text); err != nil {
		rep.say(field, "bad-memory", model.Degrades, model.Refused, err.Error()+": the namespace's own proxy may use 512Mi", "write a quantity of 128Mi or more")
	} else if !own {
		rep.say(field, "no-own-proxy", model.Degrades, model.Refused, "the namespace has no proxy of its own that this would bound", "annotate it "+ProxyKey+": "+ProxyOwn)
	}
}
