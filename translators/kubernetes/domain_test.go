// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"slices"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

func TestServicesAreNamedInTheDomain(t *testing.T) {
	s := incr.New()
	h := host.New(s, kubernetes.New(kubernetes.Options{Domain: "Corp.Example"}))
	h.Replace(objects.Decode(h.Registry(), objects.Input{Name: "in.yaml", Data: []byte(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
`)}))
	s.Run()
	got := s.Get(translators.Services, "shop/web").(*model.Service).Hosts
	if want := []string{"web.shop.svc.corp.example", "web.shop.svc", "web.shop", "web"}; !slices.Equal(got, want) {
		t.Errorf("hosts = %q, want %q", got, want)
	}
}
