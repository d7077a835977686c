// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"strings"
	"testing"

	"fairlead.io/fairlead/agent/diff"
)

// httpRoute is what istioRoute says, in the Gateway API's words.
func httpRoute(port string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web, namespace: shop}\nspec: {parentRefs: [{group: '', kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: web, port: " + port + "}], timeouts: {request: 2s}}]}"
}

func istioRoute(timeout string) string {
	return virtualService("{match: [{port: 80}], timeout: " + timeout + ", retries: {attempts: 0}, route: [{destination: {host: web, port: {number: 80}}}]}")
}

func TestStandbysAreCompared(t *testing.T) {
	text := base(t)
	for _, c := range []struct {
		name, istio, gateway string
		want                 []string // what would differ
	}{
		{"the same", istioRoute("2s"), httpRoute("80"), nil},
		{"another timeout", istioRoute("3s"), httpRoute("80"), []string{"timeout: 3s -> 2s"}},
		{"another port", istioRoute("2s"), httpRoute("90"), []string{"leads to: shop/web:80 -> shop/web:90"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := diff.Standbys(tables(t, text, c.istio, c.gateway))
			if len(got) != 1 || got[0].Frontend != "shop/web:80" || got[0].Owner != "istio" || got[0].Plane != "gateway" {
				t.Fatalf("standbys %+v", got)
			}
			var changes []string
			for _, r := range got[0].Changes {
				for _, x := range r.Changes {
					changes = append(changes, x.What+": "+x.Old+" -> "+x.New)
				}
			}
			if strings.Join(changes, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("told %q, want %q", changes, c.want)
			}
		})
	}
}
