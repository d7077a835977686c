// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/swap"
)

// swapAnswer is what fairlead swap -o json says.
type swapAnswer struct {
	From, To           string
	Written, TakenBack bool
	Before, After      *swap.Counts
	said               string // to a person
	code               int
}

// swap runs the command against the lab, and waits until the agents have what it wrote.
func (w *world) swap(t *testing.T, args ...string) *swapAnswer {
	t.Helper()
	var out, said bytes.Buffer
	args = append([]string{"swap", "shop", "--lab", labName, "-o", "json", "--baseline", "1s"}, args...)
	c := exec.CommandContext(t.Context(), filepath.Join(w.dir, "fairlead"), args...)
	c.Stdout, c.Stderr = &out, &said
	a := &swapAnswer{}
	var exit *exec.ExitError
	if err := c.Run(); errors.As(err, &exit) {
		a.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), a); err != nil {
		t.Fatalf("fairlead %s: %v: %s%s", strings.Join(args, " "), err, out.String(), said.String())
	}
	if err := w.applied(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.said = said.String()
	return a
}

// TestSwapCommand swaps with the command while requests flow, and goes back.
func TestSwapCommand(t *testing.T) {
	w := lives(t)
	app, all := shop(t, "app.yaml"), fourPlanes(t)
	t.Cleanup(func() { w.delete(t, append(all, app)...); w.nothingRetires(t) })
	w.apply(t, append(all, app)...)
	w.apply(t, owner("istio"))
	s := w.storm(t)
	s.refusals = append(s.refusals, "status 404")
	watch := length() / 8
	const failures = "10" // percent: a tenth of the storm is forbidden, and counted for a second alone
	for _, step := range []struct {
		args     []string
		from, to string
		written  bool
	}{
		{[]string{"--to", "smi", "--dry-run"}, "istio", "smi", false},
		{[]string{"--to", "smi"}, "istio", "smi", true},
		{[]string{"--to", "smi"}, "smi", "smi", false},
		{[]string{"--to", "linkerd"}, "smi", "linkerd", true},
		{[]string{"--back"}, "linkerd", "smi", true},
		{[]string{"--to", "gateway"}, "smi", "gateway", true},
		{[]string{"--back"}, "gateway", "smi", true},
		{[]string{"--to", "none"}, "smi", "none", true},
	} {
		a := w.swap(t, append(step.args, "--watch", watch.String(), "--max-failures", failures)...)
		if a.code != 0 || a.From != step.from || a.To != step.to || a.Written != step.written || a.TakenBack {
			t.Errorf("%v: ended with %d: %+v", step.args, a.code, a)
		}
		if a.Written && (a.Before == nil || a.After == nil || a.Before.All == 0 || a.After.All == 0) {
			t.Errorf("%v: counted %+v before and %+v after: %s", step.args, a.Before, a.After, a.said)
		}
	}
	s.end(t)
}

// TestSwapIsTakenBack swaps to a plane whose routes lead nowhere: the command notices, and
// the last owner's routes serve again.
func TestSwapIsTakenBack(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	bad := txtar.File{Name: "gateway.yaml", Data: []byte(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 80}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
`)}
	t.Cleanup(func() { w.delete(t, bad, istio, app); w.nothingRetires(t) })
	w.apply(t, app, istio, bad)
	w.apply(t, owner("istio"))
	g := generate(t, "shop/frontend-1", "--url", "http://reviews/api/x", "--rate", "50", "--connections", "4")
	a := w.swap(t, "--to", "gateway", "--watch", "3s")
	if a.code != 1 || !a.Written || !a.TakenBack || !strings.Contains(a.said, "was taken back") || a.Before.Failed > 0 || a.After.Failed == 0 {
		t.Errorf("ended with %d: %+v, before %+v, after %+v", a.code, a, a.Before, a.After)
	}
	w.runText(t, "shop", `frontend-1 GET http://reviews/api/x *100 -> 200 pods>1`)
	sum := g.end(t)
	if sum.OK == 0 || sum.Failures["status 500"] == 0 || sum.Failed != sum.Failures["status 500"] {
		t.Errorf("%d of %d failed: %v", sum.Failed, sum.Requests, sum.Failures)
	}
	if again := w.swap(t, "--to", "istio", "--watch", "0"); again.From != "istio" || again.Written {
		t.Errorf("the owner is %s", again.From)
	}
}
