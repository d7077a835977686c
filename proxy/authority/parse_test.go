// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// A table's names are those that the plan gave it, and no more; a table that takes any
// host has none.
func TestParseTable(t *testing.T) {
	elsewhere := &plan.Elsewhere{Port: 8080, Unknown: model.UnknownPass}
	for _, c := range []struct {
		table        plan.RouteTable
		port         uint16
		names, short []string
	}{
		{plan.RouteTable{Hosts: []string{"web.shop", "web", "10.96.0.1", "[fd96::1]", "*.web.shop"}, Elsewhere: elsewhere, Routes: []plan.Route{{ID: "r"}}},
			8080, []string{".web.shop", "10.96.0.1", "[fd96::1]", "web.shop"}, []string{"web"}},
		{plan.RouteTable{Elsewhere: elsewhere}, 8080, nil, nil},
		{plan.RouteTable{Routes: []plan.Route{{ID: "r"}}}, 0, nil, nil},
	} {
		c.table.Name = "t"
		n, err := parseTable(rendered(t, &c.table)[0])
		if err != nil || n.port != c.port || !slices.Equal(n.names, c.names) || !slices.Equal(n.short, c.short) {
			t.Errorf("%+v: %+v, %v", c.table, n, err)
		}
	}
	if _, err := parseTable(xds.Resource{Name: "t", Body: []byte{0xff}}); err == nil {
		t.Error("what is no message is read")
	}
}

func TestParseTarget(t *testing.T) {
	for key, want := range map[string]target{
		"10.96.0.1:80":               {},
		"[fd96::1]:80":               {v6: true},
		"host|api.example.com:80":    {host: "api.example.com", port: 80},
		"host|api.example.com:80@6":  {host: "api.example.com", port: 80, v6: true},
		"host|*.example.com:65535@6": {host: ".example.com", port: 65535, v6: true},
		"host|single:80":             {host: "single", port: 80},
	} {
		if got, ok := parseTarget(key); !ok || got != want {
			t.Errorf("%s: %+v, %v", key, got, ok)
		}
	}
	for _, key := range []string{"", "pass", "any|80", "in|10.244.1.2:80", "tcp|10.96.0.1:80", "10.96.0.1", "10.96.0.1:0", "10.96.0.1:080", "010.96.0.1:80",
		"[FD96::1]:80", "[fe80::1%eth0]:80", "fd96::1:80", "host|", "host|:80", "host|a:0", "host|a:080", "host|a:80@4", "host|a:80@6@6", "host|A:80", "host|*:80", "host|a b:80", "x"} {
		if got, ok := parseTarget(key); ok {
			t.Errorf("%s leads to %+v", key, got)
		}
	}
}
