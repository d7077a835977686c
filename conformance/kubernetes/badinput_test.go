// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// toldOf is what users are told of an object: the messages of its conditions, and Events.
func (f *fleet) toldOf(kind, namespace, name string) (uid, text string, err error) {
	out, err := f.c.try(context.Background(), "", "get", kind, "-n", namespace, name, "-o", "json")
	if err != nil {
		return "", "", err
	}
	var o struct {
		Metadata struct {
			UID        string
			Generation int
		}
		Status struct {
			Conditions []struct {
				Type, Status, Reason, Message string
				ObservedGeneration            int
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		return "", "", err
	}
	var lines []string
	for _, c := range o.Status.Conditions {
		if c.ObservedGeneration != o.Metadata.Generation {
			return "", "", fmt.Errorf("%s is of generation %d, and the object of %d", c.Type, c.ObservedGeneration, o.Metadata.Generation)
		}
		lines = append(lines, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	events, err := f.c.try(context.Background(), "", "get", "events.events.k8s.io", "-n", namespace, "-o",
		`jsonpath={range .items[*]}{.regarding.uid} {.type} {.reason}: {.note}{"\n"}{end}`)
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(events) {
		if of, note, _ := strings.Cut(strings.TrimSpace(line), " "); of == o.Metadata.UID {
			lines = append(lines, note)
		}
	}
	return o.Metadata.UID, strings.Join(lines, "\n"), nil
}

// saying waits until users are told all of this of an object, and returns its UID.
func (f *fleet) saying(t *testing.T, kind, namespace, name string, want ...string) string {
	t.Helper()
	var uid string
	eventually(t, time.Minute, "what is said of "+kind+" "+namespace+"/"+name, func() error {
		of, text, err := f.toldOf(kind, namespace, name)
		uid = of
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(want, func(w string) bool { return !strings.Contains(text, w) }); i >= 0 {
			return fmt.Errorf("no %q in %q", want[i], text)
		}
		return nil
	})
	return uid
}

// meaningless gives the API server objects that it takes and that mean nothing: each is told
// to whoever looks at it, with the field and what becomes of it, and costs nobody a request.
func meaningless(t *testing.T, f *fleet) {
	const file = "testdata/meaningless.yaml"
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), "", "delete", "--ignore-not-found", "-f", file)
	})
	f.under(t, "objects that mean nothing", func() {
		f.c.kubectl(t, "apply", "-f", file)
		for _, o := range []struct {
			kind, namespace, name string
			want                  []string
		}{
			{"virtualservice", "mesh", "nowhere", []string{"spec.hosts[0]", "nowhere.mesh.svc.cluster.local names no service"}},
			{"virtualservice", "mesh", "missing", []string{"spec.http[0].route[0].destination.host", "there is no service nobody.mesh.svc.cluster.local"}},
			{"virtualservice", "mesh", "misspelt", []string{"Accepted=False Invalid", "spec.htttp", `there is no field "htttp" here`}},
			{"destinationrule", "mesh", "nobody", []string{"spec.host", "nobody names no service: the rule has no effect"}},
			{"authorizationpolicy", "mesh", "broken", []string{"Accepted=False Invalid", "spec.action", "everything that it may guard is denied"}},
			{"trafficsplit", "targets", "nothing", []string{"spec.backends", "a split needs backends"}},
			{"trafficsplit", "targets", "nobody", []string{"spec.backends", "all weights are 0", "delete the split to send it to the root service"}},
			{"traffictarget", "targets", "nobody", []string{"spec.rules[0].name", "there is no HTTPRouteGroup targets/missing: this rule allows nothing"}},
			{"httproutegroup", "targets", "broken", []string{"spec.matches[0].pathRegex", "not a regular expression"}},
		} {
			f.saying(t, o.kind, o.namespace, o.name, o.want...)
		}
		for _, n := range nodes {
			f.settled(t, n)
		}
		f.expect(t, "mesh/client-1", []string{"web-1"}, "-repeat", "20", "http://web/v1")
		f.expect(t, "mesh/client-1", []string{"api-1", "api-2"}, "-repeat", "40", "http://api.targets/")
		f.expect(t, "mesh/client-1", []string{"503"}, "http://missing-backend/")
		f.c.kubectl(t, "delete", "-f", file)
	})
	eventually(t, time.Minute, "nothing is told of what is gone", func() error {
		left, err := f.c.try(t.Context(), "", "get", "events.events.k8s.io", "-n", "targets", "-l", "app.kubernetes.io/managed-by=fairlead", "-o", "jsonpath={range .items[*]}{.regarding.name} {.note}\n{end}")
		if err == nil && left != "" {
			err = fmt.Errorf("there is %s", left)
		}
		return err
	})
}

// madeAgain deletes objects and makes others of their names: what is told and done is the
// new ones'.
func madeAgain(t *testing.T, f *fleet) {
	again := func(text string) {
		t.Helper()
		if out, err := f.c.try(t.Context(), text, "replace", "--force", "-f", "-"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	policy, err := os.ReadFile("testdata/node-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var routes string // of web, which must stand again as they stood; their subsets stay: without these they mean 503
	for text := range strings.SplitSeq(string(policy), "---\n") {
		if strings.Contains(text, "kind: VirtualService\nmetadata: {name: web, namespace: mesh}") {
			routes = text
		}
	}
	if routes == "" {
		t.Fatal("no routes of web")
	}
	virtualService := func(hosts string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: again, namespace: mesh}\n" +
			"spec: {hosts: [" + hosts + "], http: [{route: [{destination: {host: web}}]}]}\n"
	}
	split := func(backends string) string {
		return "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: again, namespace: targets}\n" +
			"spec: {service: api, backends: " + backends + "}\n"
	}
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), virtualService("x")+"---\n"+split("[]"), "delete", "--ignore-not-found", "-f", "-")
	})
	f.under(t, "objects made again", func() {
		f.apply(t, virtualService("nowhere")+"---\n"+split("[]"))
		route := f.saying(t, "virtualservice", "mesh", "again", "names no service")
		first := f.saying(t, "trafficsplit", "targets", "again", "a split needs backends")
		again(routes + "---\n" + virtualService("public") + "---\n" + split("[{service: api, weight: 0}]"))
		if f.saying(t, "virtualservice", "mesh", "again", "Accepted=True") == route || f.saying(t, "trafficsplit", "targets", "again", "all weights are 0") == first {
			t.Error("no other object was made")
		}
		eventually(t, time.Minute, "nothing is told of the first", func() error {
			left, err := f.c.try(t.Context(), "", "get", "events.events.k8s.io", "-n", "targets", "-o", "jsonpath={.items[*].regarding.uid}")
			if err == nil && strings.Contains(left, first) {
				err = fmt.Errorf("Events are of %s", left)
			}
			return err
		})
		f.saying(t, "virtualservice", "mesh", "web", "Accepted=True")
		f.expect(t, "mesh/client-1", []string{"web-1"}, "-repeat", "20", "http://web/v1")
		f.expect(t, "mesh/client-2", []string{"web-2"}, "-repeat", "20", "http://web/v2")
		f.expect(t, "mesh/client-1", []string{"web-1", "web-2"}, "-repeat", "40", "http://public/open")
	})
}
