// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// frontends are tables of frontends alone.
type frontends []*model.Frontend

func (frontends) Get(incr.Table, string) any { return nil }

func (f frontends) Rows(t incr.Table) []incr.Row {
	var out []incr.Row
	for _, x := range f {
		if t == merge.Frontends {
			out = append(out, incr.Row{Table: t, Key: x.Key(), Value: x})
		}
	}
	return out
}

func TestBackendsAreNamedAsTheyWereWritten(t *testing.T) {
	v2 := map[string]string{"version": "v2", "app": "web"}
	name := Backends(frontends{{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{Backends: []model.Backend{{Labels: v2}}}}}})
	hash := model.Hash(v2)[:16]
	for cluster, want := range map[string]string{
		"shop/web:80":                            "shop/web:80",
		"shop/web:80@6":                          "shop/web:80",
		"shop/web:80/" + hash:                    "shop/web:80{app=web,version=v2}",
		"shop/web:80/0123456789abcdef":           "shop/web:80",
		"shop/web:80=0123456789abcdef~open@6":    "shop/web:80",
		"mirror/shop/web:80/" + hash + "+detect": "shop/web:80{app=web,version=v2}",
		"missing/shop/gone:80":                   "shop/gone:80 (not there)",
		"dialled/shop/far:443":                   "shop/far:443 (as it is dialled)",
		"tcp||10.0.0.1:90":                       "connections to 10.0.0.1:90",
		"tcp|c1|[fd96::1]:90":                    "connections to [fd96::1]:90 from clients of class c1",
		"tls|*.example||10.0.0.1:443":            "connections to 10.0.0.1:443 for *.example",
		"something else":                         "something else",
	} {
		if got := name(cluster); got != want {
			t.Errorf("%s is %s, want %s", cluster, got, want)
		}
	}
}
