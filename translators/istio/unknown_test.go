// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

const unknownWorld = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: tls, port: 443}, {port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}}]}]
  tls:
  - match: [{sniHosts: [web], sourceLabels: {app: a}}, {sniHosts: [web], sourceNamespace: b}]
    route: [{destination: {host: web}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: example, namespace: shop}
spec:
  hosts: [www.example.com]
  http: [{directResponse: {status: 200}}]
  exportTo: ["."]
`

func with(o Options) func() translators.Translator {
	return func() translators.Translator {
		t, err := New(o)
		if err != nil {
			panic(err) // the options are those of a test
		}
		return t
	}
}

// What a host is that nobody knows, the mesh's setting says, or the namespace's
// annotation.
func TestUnknownHosts(t *testing.T) {
	pass := "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {fairlead.io/unknown-hosts: pass}}\n"
	for name, c := range map[string]struct {
		policy, more string
		refused      bool
	}{
		"by default":    {"", "", false},
		"ALLOW_ANY":     {"ALLOW_ANY", "", false},
		"REGISTRY_ONLY": {"REGISTRY_ONLY", "", true},
		"annotation":    {"REGISTRY_ONLY", pass, false},
	} {
		out := translatortest.Translate(with(Options{OutboundTrafficPolicy: c.policy}), objects.Input{Name: "in.yaml", Data: []byte(unknownWorld + c.more)})
		var got []string
		tls := out.Store.Get(translators.Routes(Plane), "shop/web:443").(*model.Frontend)
		for _, r := range tls.Connections {
			got = append(got, fmt.Sprintf("%v %s %d %d", r.ServerNames, r.SourceNamespace, len(r.SourceLabels), len(r.Backends)))
		}
		want := []string{"[web]  1 1", "[web] b 0 1", "[]  1 0", "[] b 0 0", "[]  0 1"}
		if !c.refused { // whoever asks for another name gets the service
			want = []string{"[web]  1 1", "[web] b 0 1", "[]  0 1"}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: connections %q, want %q", name, got, want)
		}
		host := out.Store.Get(translators.Routes(Plane), "shop/host/www.example.com:80").(*model.Frontend)
		last := host.Routes[len(host.Routes)-1]
		if refused := last.Direct != nil && last.Direct.Status == 502; refused != c.refused || last.Original == c.refused {
			t.Errorf("%s: who is not served gets %s", name, model.Bytes(last))
		}
	}
}

func TestDetectionTimeout(t *testing.T) {
	for _, want := range []time.Duration{0, 3 * time.Second} {
		out := translatortest.Translate(with(Options{DetectionTimeout: &want}), objects.Input{Name: "in.yaml", Data: []byte(unknownWorld)})
		if f := out.Store.Get(translators.Routes(Plane), "shop/web:9000").(*model.Frontend); f.App != model.AppDetect || f.DetectTimeout != want {
			t.Errorf("%s: %+v", want, f)
		}
	}
}
