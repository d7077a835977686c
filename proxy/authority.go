// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds"
)

// newAuthority makes what answers whom a host means, from what Envoy is served.
func (p *proxy) newAuthority(resources []xds.Resource) {
	p.names = authority.NewIndex()
	for _, r := range resources {
		if err := p.names.Set(r); err != nil {
			p.log.Warn("names not read", "error", err)
		}
	}
	p.authority = authority.NewServer(p.names, p.complete)
}

// complete reports whether there is a configuration that is whole: that which was
// saved, which an Envoy that runs has, or the agent's.
func (p *proxy) complete() bool {
	if p.stateErr == nil {
		return true
	}
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}
