// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"time"

	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// Rejected is a resource that Envoy did not take, or that none could be rendered of.
type Rejected struct {
	Type    string    `json:"type"` // short: "RouteConfiguration"
	Name    string    `json:"name"`
	Version string    `json:"version,omitempty"` // ""; it could not be rendered
	Detail  string    `json:"detail"`            // what is wrong, in the words of whoever found it
	Since   time.Time `json:"since"`             // when it was found
	Serving Serving   `json:"serving"`
	// Cause is what users wrote that it came from.
	blame.Cause
}

// Serving says what traffic gets in place of a rejected resource.
type Serving string

const (
	LastGood  Serving = "last good" // the version before it
	Answer500 Serving = "500"
	Nothing   Serving = "nothing" // as if it was not there: 503, no endpoints, no redirect
	// WithoutPolicy is a cluster that claims nothing: the destination's own node
	// judges what the cluster should have.
	WithoutPolicy Serving = "without policy"
)

// serving tells what there is for a rejected resource of which Envoy kept a version.
func serving(typ, kept string) Serving {
	switch {
	case kept != "":
		return LastGood
	case typ == xds.RouteType:
		return Answer500
	}
	return Nothing
}

// rejections are those of now. The agent's mu guards them.
type rejections map[resourceKey]*Rejected

// add notes that a version was rejected, and reports whether that is news.
func (rs rejections) add(k resourceKey, version, detail string, s Serving, since time.Time) (r *Rejected, news bool) {
	if had := rs[k]; had != nil && had.Version == version && had.Detail == detail {
		had.Serving = s
		return had, false
	}
	r = &Rejected{Type: xds.Short(k.typ), Name: k.name, Version: version, Detail: detail, Since: since, Serving: s}
	rs[k] = r
	return r, true
}

// list copies them in a fixed order. What the proxy knows better is what Envoy has:
// it has served it longer than this agent, maybe, and hears of what Envoy has judged.
func (rs rejections) list(p *proxy.Status) []Rejected {
	kept := map[resourceKey]serve.Rejection{}
	if p != nil {
		for _, r := range p.Served.Rejected {
			kept[resourceKey{r.Type, r.Name}] = r
		}
	}
	out := make([]Rejected, 0, len(rs))
	for k, r := range rs {
		c := *r
		if at, ok := kept[k]; ok && at.Version == r.Version && r.Version != "" && r.Serving != WithoutPolicy {
			c.Serving = serving(k.typ, at.Kept)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Rejected) int {
		return cmp.Or(cmp.Compare(rank(a.Type), rank(b.Type)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// rank is a type's place in the order in which resources become ready.
func rank(short string) int {
	return slices.IndexFunc(xds.Types(), func(t string) bool { return xds.Short(t) == short })
}
