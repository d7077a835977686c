// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// Rules beyond the bound are named, and no others; each rule has clients of its own before
// those that several rules select.
func TestMoreSelectorsThanRoom(t *testing.T) {
	rule := func(i int, host, labels string) string {
		return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r%02d, namespace: shop}\nspec: {host: %s, workloadSelector: {matchLabels: {%s}}, trafficPolicy: {connectionPool: {tcp: {maxConnections: %d}}}}\n", i, host, labels, i+1)
	}
	route := "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [{route: [{destination: {host: web}, weight: 1}, {destination: {host: api}, weight: 1}]}]}\n"
	one := func(i int) string { return fmt.Sprintf("app: a%d", i) }
	other := func(i int) string { return fmt.Sprintf("k%d: x", i) }
	for name, c := range map[string]struct {
		rules  int
		labels func(int) string
		split  bool // every other rule is for the other host, and a route leads to both
		beyond []string
		routes int
	}{
		"as many as there is room for":          {64, one, false, nil, 66},
		"one more":                              {65, one, false, []string{"r64"}, 66},
		"several at once, as many as have room": {6, other, false, nil, 65},
		"several at once, too many":             {7, other, false, []string{"r04", "r05", "r06"}, 66},
		"of two hosts, of which each has room":  {66, one, true, []string{"r62", "r64"}, 66},
	} {
		var text strings.Builder
		text.WriteString(world)
		for i := range c.rules {
			host := "web"
			if c.split && i%2 == 1 {
				host = "api"
			}
			text.WriteString(rule(i, host, c.labels(i)))
		}
		if c.split {
			text.WriteString(route)
		}
		out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(text.String())})
		var beyond []string
		for _, d := range out.Diagnostics() {
			if d.Code == "too-many-selectors" && !slices.Contains(beyond, d.Source.Name) {
				beyond = append(beyond, d.Source.Name)
			}
		}
		slices.Sort(beyond)
		f, _ := out.Store.Get(translators.Routes(Plane), "shop/web:80").(*model.Frontend)
		if f == nil {
			t.Fatalf("%s: no frontend", name)
		}
		if !slices.Equal(beyond, c.beyond) {
			t.Errorf("%s: beyond are %v, want %v", name, beyond, c.beyond)
		}
		own := map[string]bool{}
		for _, r := range f.Routes {
			if len(r.Match.SourceLabels) == 1 {
				for k, v := range r.Match.SourceLabels {
					own[k+v] = true
				}
			}
		}
		if want := min(c.rules, maxSelections); len(own) != want || len(f.Routes) != c.routes {
			t.Errorf("%s: %d rules have clients of their own, want %d; %d routes", name, len(own), want, len(f.Routes))
		}
	}
}
