// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

func meshYAML(text string) string {
	return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

func defaultsOf(out translatortest.Output) *model.Defaults {
	return out.Store.Get(translators.Defaults, Plane).(*model.Defaults)
}

// What an option says comes before MeshConfig, and MeshConfig before Istio's defaults.
func TestMeshConfigAndOptions(t *testing.T) {
	second := time.Second
	const yaml = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\nprotocolDetectionTimeout: 5s\ndefaultHttpRetryPolicy: {attempts: 7}"
	for name, c := range map[string]struct {
		options Options
		mesh    string
		unknown model.Unknown
		detect  time.Duration
		retries uint32
	}{
		"nothing":         {Options{}, "", model.UnknownPass, 0, 2},
		"an empty object": {Options{}, "{}", model.UnknownPass, 0, 2},
		"the object":      {Options{}, yaml, model.UnknownRefuse, 5 * time.Second, 7},
		"options":         {Options{OutboundTrafficPolicy: "ALLOW_ANY", DetectionTimeout: &second}, yaml, model.UnknownPass, second, 7},
		"options alone":   {Options{OutboundTrafficPolicy: "REGISTRY_ONLY", DetectionTimeout: &second}, "", model.UnknownRefuse, second, 2},
		"not a mapping":   {Options{}, "[]", model.UnknownPass, 0, 2},
		"elsewhere":       {Options{RootNamespace: "mesh"}, yaml, model.UnknownPass, 0, 2},
	} {
		in := []objects.Input{{Name: "in.yaml", Data: []byte(unknownWorld)}}
		if c.mesh != "" {
			in = append(in, objects.Input{Name: "mesh.yaml", Data: []byte(meshYAML(c.mesh))})
		}
		out := translatortest.Translate(with(c.options), in...)
		d := defaultsOf(out)
		f := out.Store.Get(translators.Routes(Plane), "shop/web:9000").(*model.Frontend)
		if d.Unknown != c.unknown || f.DetectTimeout != c.detect || d.Retry == nil || d.Retry.Attempts != c.retries ||
			f.Routes[0].Retry == nil || f.Routes[0].Retry.Attempts != c.retries {
			t.Errorf("%s: %s, detection %s", name, model.Bytes(d), f.DetectTimeout)
		}
	}
}

// An invalid edit of MeshConfig changes nothing.
func TestMeshConfigLastGood(t *testing.T) {
	m := newMesh()
	load := func(text string) *model.Defaults {
		m.host.Replace(objects.Decode(m.host.Registry(), objects.Input{Name: "mesh.yaml", Data: []byte(meshYAML(text))}))
		m.store.Run()
		return m.store.Get(translators.Defaults, Plane).(*model.Defaults)
	}
	if d := load("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"); d.Unknown != model.UnknownRefuse {
		t.Fatalf("%+v", d)
	}
	if d := load("outboundTrafficPolicy: {mode: NO_SUCH_MODE}"); d.Unknown != model.UnknownRefuse {
		t.Errorf("after an invalid edit: %+v", d)
	}
	if d := load("{}"); d.Unknown != model.UnknownPass {
		t.Errorf("after a valid edit: %+v", d)
	}
}

// A change of MeshConfig is computed for all that rests on it, which is counted, and for
// nothing else; another ConfigMap is nobody's concern.
func TestMeshConfigCounts(t *testing.T) {
	m := newMesh()
	set := func(text string) int {
		for _, o := range objects.Decode(m.host.Registry(), objects.Input{Name: "in.yaml", Data: []byte(text)}).Objects {
			m.host.Set(o)
		}
		before := m.store.Computed()[Plane+"/translate"]
		m.store.Run()
		return m.store.Computed()[Plane+"/translate"] - before
	}
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: shop}\nspec: {ports: [{name: http, port: 80}]}\n", i)
		if i < 10 {
			fmt.Fprintf(&text, "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s%d, namespace: shop}\nspec: {hosts: [s%d], http: [{route: [{destination: {host: s%d}}]}]}\n", i, i, i)
		}
	}
	all := set(text.String())
	if n := set(meshYAML("connectTimeout: 3s")); n == 0 || n > all+1 {
		t.Errorf("a changed MeshConfig: %d units of %d computed", n, all)
	}
	if n := set("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: istio-system}\ndata: {mesh: x}\n"); n != 0 {
		t.Errorf("another ConfigMap: %d units computed", n)
	}
}
