// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"time"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// acknowledged reports whether a push that began then was acknowledged, and makes
// known what was not.
func (a *agent) acknowledged(began time.Time, err error) bool {
	since := map[resourceKey]time.Time{}
	var late *serve.UnansweredError
	if errors.As(err, &late) {
		for _, c := range late.Changes {
			since[resourceKey{c.Type, c.Name}] = began
		}
	}
	a.mu.Lock()
	for k := range since {
		if earlier, ok := a.waiting[k]; ok { // pushed again, in vain
			since[k] = earlier
		}
	}
	a.waiting = since
	a.mu.Unlock()
	if err != nil {
		a.say(aboutEnvoy, "Envoy has not acknowledged: "+err.Error())
		return false
	}
	a.say(aboutEnvoy, "")
	return true
}

// waits lists what is not acknowledged, in the order of its types. The caller holds mu.
func (a *agent) waits() []Waiting {
	var keys []resourceKey
	for k := range a.waiting {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	out := make([]Waiting, len(keys))
	for i, k := range keys {
		out[i] = Waiting{Type: xds.Short(k.typ), Name: k.name, Since: a.waiting[k]}
	}
	return out
}
