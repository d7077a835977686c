// SPDX-License-Identifier: Apache-2.0

package datapath

import "sync/atomic"

// clients names the captured pods of the node by the cookies of their network namespaces.
// Who reads flows must not wait for who writes maps: it sees what was there last.
type clients struct {
	names atomic.Pointer[map[uint64]string]
}

// put replaces what was there.
func (c *clients) put(pods map[string]*pod) {
	names := map[uint64]string{}
	for name, p := range pods {
		if p.cookie != 0 && len(p.rows) > 0 {
			names[p.cookie] = name
		}
	}
	c.names.Store(&names)
}

// name is the pod (ns/name), "" if none is known.
func (c *clients) name(cookie uint64) string {
	if names := c.names.Load(); names != nil {
		return (*names)[cookie]
	}
	return ""
}
