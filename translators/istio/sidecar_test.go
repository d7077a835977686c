// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"testing"

	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

func sidecarYAML(namespace, name, selector, spec string) string {
	if selector != "" {
		spec = "workloadSelector: {labels: {app: " + selector + "}}, " + spec
	}
	return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: %s, namespace: %s}\nspec: {%s}\n", name, namespace, spec)
}

// What becomes of hosts that nobody knows, the Sidecar says that a client has: the first
// that selects it, then its namespace's, then the root namespace's, then the mesh.
func TestSidecarUnknownHosts(t *testing.T) {
	const all, refuse, pass = `egress: [{hosts: ["*/*"]}]`, "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "outboundTrafficPolicy: {mode: ALLOW_ANY}"
	for name, c := range map[string]struct {
		sidecars []string
		want     []string
	}{
		"none":            {nil, nil},
		"none says it":    {[]string{sidecarYAML("a", "x", "", all)}, nil},
		"as the mesh":     {[]string{sidecarYAML("a", "x", "", pass)}, nil},
		"of a namespace":  {[]string{sidecarYAML("a", "x", "", refuse), sidecarYAML("b", "x", "", all)}, []string{"a: refuse"}},
		"of some clients": {[]string{sidecarYAML("a", "x", "", all), sidecarYAML("a", "y", "web", refuse)}, []string{"a web: refuse"}},
		"of all":          {[]string{sidecarYAML("istio-system", "x", "", refuse)}, []string{"istio-system: refuse", ": refuse"}},
		"of all but some": {[]string{sidecarYAML("istio-system", "x", "", refuse), sidecarYAML("a", "x", "", all), sidecarYAML("b", "x", "web", pass)},
			[]string{"a: pass", "b web: pass", "istio-system: refuse", ": refuse"}},
		"a proxy's way":  {[]string{sidecarYAML("a", "x", "", "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b, port: {number: 1}}}")}, []string{"a: refuse"}},
		"an invalid one": {[]string{sidecarYAML("a", "x", "", "colour: blue, "+refuse)}, nil},
	} {
		var in []objects.Input
		for i, s := range c.sidecars {
			in = append(in, objects.Input{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(s)})
		}
		var got []string
		for _, u := range defaultsOf(translatortest.Translate(newTranslator, in...)).UnknownFrom {
			who := u.SourceNamespace
			if app := u.SourceLabels["app"]; app != "" {
				who += " " + app
			}
			got = append(got, who+": "+string(u.Unknown))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Hosts of Sidecars are compared as Istio does: pilot/pkg/model/sidecar.go.
func TestSidecarHosts(t *testing.T) {
	for _, c := range []struct {
		entries         []string
		namespace, host string
		shows, overlaps bool
	}{
		{[]string{"*/*"}, "shop", "web.shop.svc.cluster.local", true, true},
		{[]string{"./*"}, "shop", "web.shop.svc.cluster.local", false, false},
		{[]string{"./*"}, "own", "web.own.svc.cluster.local", true, true},
		{[]string{"shop/web"}, "shop", "web.shop.svc.cluster.local", false, false},
		{[]string{"shop/Web.shop.svc.cluster.local"}, "shop", "web.shop.svc.cluster.local", true, true},
		{[]string{"shop/*.example.com"}, "shop", "*.a.example.com", true, true},
		{[]string{"shop/a.example.com"}, "shop", "*.example.com", false, true},
		{[]string{"*/*.example.com", "~*/a.example.com"}, "shop", "a.example.com", false, false},
		{[]string{"*/*.example.com", "~other/a.example.com"}, "shop", "a.example.com", true, true},
		{[]string{"~/*"}, "own", "web.own.svc.cluster.local", false, false},
	} {
		v := view{sidecar: &objects.Object{}, own: "own", hosts: egressHosts(c.entries)}
		if got := v.shows(c.namespace, c.host, false); got != c.shows {
			t.Errorf("%q shows %s/%s: %t", c.entries, c.namespace, c.host, got)
		}
		if got := v.shows(c.namespace, c.host, true); got != c.overlaps {
			t.Errorf("%q overlaps %s/%s: %t", c.entries, c.namespace, c.host, got)
		}
	}
}

// BenchmarkSidecars edits one of many Sidecars: every service is looked at again.
func BenchmarkSidecars(b *testing.B) {
	const services, namespaces = 1000, 100
	m := newMesh()
	set := func(text string) {
		for _, o := range objects.Decode(m.host.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text)}).Objects {
			m.host.Set(o)
		}
	}
	for i := range services {
		set(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: n%d}\nspec: {ports: [{name: http, port: 80}]}\n", i, i%namespaces))
	}
	for i := range namespaces {
		set(sidecarYAML(fmt.Sprintf("n%d", i), "default", "", `egress: [{hosts: ["./*", "istio-system/*"]}]`))
	}
	m.store.Run()
	for i := 0; b.Loop(); i++ {
		set(sidecarYAML("n7", "default", "", fmt.Sprintf(`egress: [{hosts: ["./*", "n%d/*"]}]`, i%namespaces)))
		m.store.Run()
	}
}
