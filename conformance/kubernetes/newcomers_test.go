// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newcomers is how many pods come, to each server and in each way; NEWCOMERS=50 makes it 50.
var newcomers = func() int {
	if n, err := strconv.Atoi(os.Getenv("NEWCOMERS")); err == nil && n > 0 {
		return n
	}
	return 5
}()

// newcomersWorld has a server that is guarded by ports alone, which the kernel judges, and
// one by requests, which the proxy does; and two kinds of clients.
const newcomersWorld = `apiVersion: v1
kind: Namespace
metadata: {name: hosts}
---
apiVersion: v1
kind: Namespace
metadata: {name: captured, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: straight}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ports, namespace: hosts}
spec:
  selector: {matchLabels: {guarded: ports}}
  rules: [{from: [{source: {namespaces: [captured, straight]}}], to: [{operation: {ports: ["8080"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: requests, namespace: hosts}
spec:
  selector: {matchLabels: {guarded: requests}}
  rules: [{from: [{source: {namespaces: [captured, straight]}}], to: [{operation: {paths: [/open]}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: ports, namespace: hosts}
spec: {selector: {guarded: ports}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: requests, namespace: hosts}
spec: {selector: {guarded: requests}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// newcomer is a pod whose first act is a request, and whose second is one that is forbidden
// where requests are judged.
func newcomer(namespace, name, node, url string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  nodeName: %s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  enableServiceLinks: false
  automountServiceAccountToken: false
  containers:
  - {name: client, image: "fairlead.local/lab:1", imagePullPolicy: Never, command: [sh, -c, "call -timeout 20s %s/open; call -timeout 20s %s/shut; sleep 3600"]}
`, name, namespace, node, url, url)
}

// said are the results that a newcomer prints: of its first request and of its second.
func (f *fleet) said(t *testing.T, namespace, pod string) (first, second result) {
	t.Helper()
	eventually(t, time.Minute, "requests of "+namespace+"/"+pod, func() error {
		out, err := f.c.try(t.Context(), "", "logs", "-n", namespace, pod)
		if err != nil {
			return err
		}
		var all []result
		for d := json.NewDecoder(strings.NewReader(out)); ; {
			var r result
			if err := d.Decode(&r); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			all = append(all, r)
		}
		if len(all) != 2 {
			return fmt.Errorf("%d are answered: %s", len(all), out)
		}
		first, second = all[0], all[1]
		return nil
	})
	return first, second
}

// The first request of a new pod, from its first instruction on, is served by a guarded pod
// of another node that lets it in, though that node has not heard of its address yet.
func TestNewcomers(t *testing.T) {
	f := reading(t, main)
	f.c.kubectl(t, "apply", "-f", "testdata/istio-crds.yaml")
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), "", "delete", "namespace", "hosts", "captured", "straight", "--wait=false")
		_, _ = f.c.try(context.Background(), "", "delete", "--ignore-not-found", "-f", "testdata/istio-crds.yaml", "--wait=false")
	})
	f.c.kubectl(t, "wait", "--for=condition=Established", "-f", "testdata/istio-crds.yaml", "--timeout=30s")
	f.apply(t, newcomersWorld)
	for _, by := range []string{"ports", "requests"} {
		f.apply(t, plainPod("hosts", by, "node-1"))
		f.c.kubectl(t, "label", "-n", "hosts", "pod", by, "guarded="+by)
	}
	f.c.kubectl(t, "wait", "-n", "hosts", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
	for _, n := range []string{"node-1", "node-2"} {
		f.runProxy(t, n)
		f.runAgent(t, n, pluginFlags...)
		f.uninstallAtEnd(t, n)
	}
	type way struct{ by, from, to, url string }
	var ways []way
	for _, by := range []string{"ports", "requests"} {
		at, _ := f.c.addresses(t, "hosts", "pod", by, ".status.podIPs[*].ip")
		vip := f.c.kubectl(t, "get", "service", "-n", "hosts", by, "-o", "jsonpath={.spec.clusterIP}")
		for _, from := range []string{"captured", "straight"} {
			ways = append(ways, way{by, from, "address", "http://" + at + ":8080"}, way{by, from, "service", "http://" + vip})
		}
	}
	name := func(w way, i int) string { return fmt.Sprintf("%s-%s-%d", w.by, w.to, i) }
	var text string
	for i := range newcomers {
		for _, w := range ways {
			text += newcomer(w.from, name(w, i), "node-2", w.url)
		}
	}
	f.apply(t, text)
	for _, w := range ways {
		var took []time.Duration
		for i := range newcomers {
			first, second := f.said(t, w.from, name(w, i))
			if first.Status != 200 || first.Answer == nil {
				t.Errorf("%s/%s: its first request came to %d %s %s", w.from, name(w, i), first.Status, first.Error, first.Detail)
			}
			if want := map[string]int{"ports": 200, "requests": 403}[w.by]; second.Status != want {
				t.Errorf("%s/%s: what is not allowed came to %d %s %s, want %d", w.from, name(w, i), second.Status, second.Error, second.Detail, want)
			}
			took = append(took, time.Duration(first.Millis*float64(time.Millisecond)))
		}
		slices.Sort(took)
		t.Logf("first requests to who is guarded by %s, %s, by %s took, %s", w.by, w.from, w.to, quantiles(took))
	}
}
