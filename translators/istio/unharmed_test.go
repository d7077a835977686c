// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// One bad object of each kind costs the others nothing. What an unreadable policy may
// guard is denied, and who it may select sees no more for an unreadable Sidecar; they are
// of a namespace of their own here.
func TestUnharmed(t *testing.T) {
	var good strings.Builder
	for i := range 100 {
		fmt.Fprintf(&good, `---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: shop}
spec: {clusterIP: 10.96.1.%[2]d, selector: {app: s%[1]d}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: shop}
spec: {hosts: [s%[1]d], http: [{route: [{destination: {host: s%[3]d, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%[1]d, namespace: shop}
spec: {host: s%[1]d, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d, namespace: shop}
spec: {hosts: [s%[1]d.example.com], resolution: STATIC, endpoints: [{address: 10.8.0.%[2]d}], ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: s%[1]d, namespace: shop}
spec: {selector: {matchLabels: {app: s%[1]d}}, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`, i, i+1, (i+1)%100)
	}
	guards := []objects.Kind{authorizationPolicyKind, peerAuthenticationKind, requestAuthenticationKind, sidecarKind}
	var bad []string
	for _, typ := range newTranslator().Types() {
		if typ.Kind == configMapKind {
			continue // MeshConfig is the mesh's own
		}
		namespace := "shop"
		if slices.Contains(guards, typ.Kind) {
			namespace = "spare"
		}
		head := fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: bad, namespace: %s}\n", typ.Kind.Group, typ.Version, typ.Kind.Kind, namespace)
		bad = append(bad, head+"spec: 7\n", head+"spec: {nosuch: [1]}\n",
			head+`spec: {hosts: 7, http: no, host: [s1], subsets: 7, endpoints: x, address: 7, rules: no, mtls: [], egress: 7}`+"\n",
			head+`spec: {hosts: [nobody], host: nobody, http: [{timeout: -1s}], trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}}`+"\n")
	}
	translatortest.Unharmed(t, newTranslator, good.String(), bad...)
}
