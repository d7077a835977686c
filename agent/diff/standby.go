// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/translators"
)

// Standby is a plane that has routes for a frontend that another one serves.
type Standby struct {
	Frontend string `json:"frontend"` // key
	Owner    string `json:"owner"`
	Plane    string `json:"plane"` // that stands by
	// Changes are what would differ if it served; none: nothing would.
	Changes []RouteChange `json:"changes,omitempty"`
}

// Standbys compares all planes that stand by with those that serve, by frontend.
func Standbys(t Tables) []Standby {
	var out []Standby
	for _, row := range t.Rows(merge.Owners) {
		o := row.Value.(*merge.Owner)
		serves := frontendOf(t, row.Key)
		if serves == nil {
			continue
		}
		for _, p := range o.Standby {
			f, _ := t.Get(translators.Routes(p), row.Key).(*model.Frontend)
			if f == nil {
				continue
			}
			r := &Report{}
			if would := serves.served(f); model.Hash(serves) != model.Hash(would) {
				r.frontend(row.Key, serves, would)
			}
			out = append(out, Standby{Frontend: row.Key, Owner: o.Plane, Plane: p, Changes: r.Routes})
		}
	}
	return out
}

// served is the frontend if it had another plane's routes. Who balances, and what
// becomes of unknown hosts, is compared by Compare alone: it depends on more than the
// routes.
func (f *frontend) served(by *model.Frontend) *frontend {
	out := &frontend{Mode: f.Mode, App: cmp.Or(by.App, f.App), Basis: f.Basis, Unknown: f.Unknown, Invalid: by.Invalid, src: by.Src}
	if out.hasRequests() {
		out.Routes = by.Routes
	}
	out.connected(by, own(by.Namespace, by.Service, by.Port))
	return out
}
