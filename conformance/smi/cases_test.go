// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// refusedByServer are cases with an object that the definitions do not let in, and the
// words in which the server says so. They are judged of files alone.
var refusedByServer = map[string]string{
	"s12-rules-of-other-group": `Unsupported value: "Route"`,
	"s14-identity-binding":     `no matches for kind "IdentityBinding"`,
	"s14-versions-unknown":     `no matches for kind "TrafficTarget" in version "access.smi-spec.io/v1alpha4"`,
}

// table runs the decision table on the cluster: the same files as on the lab.
func table(t *testing.T) {
	files, err := filepath.Glob("*.txtar")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d cases: %v", len(files), err)
	}
	base, err := os.ReadFile(filepath.Join(root, "conformance/cases/base/smi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var homes []string
	byHome := map[string][]*tableCase{}
	for _, file := range files {
		c, err := readCase(file)
		if err != nil {
			t.Fatal(err)
		}
		if byHome[c.home] == nil {
			homes = append(homes, c.home)
		}
		byHome[c.home] = append(byHome[c.home], c)
	}
	ran := 0
	for _, home := range homes {
		t.Run(home, func(t *testing.T) {
			namespace(t, home)
			apply(t, forCluster(strings.ReplaceAll(string(base), "$ns", home)))
			ready(t, home)
			for _, c := range byHome[home] {
				t.Run(c.name, func(t *testing.T) {
					c.run(t)
					ran++
				})
			}
		})
	}
	t.Logf("%d cases", ran)
}

func (c *tableCase) run(t *testing.T) {
	var own, settings []string
	for _, m := range c.manifests {
		if m.name == "namespace.yaml" {
			settings = append(settings, m.text)
		} else {
			own = append(own, forCluster(m.text))
		}
	}
	text := strings.Join(own, "\n---\n")
	said, refused := refusedByServer[c.name]
	applied := func() error {
		_, err := cluster.Try(t.Context(), strings.Join(append(settings, text), "\n---\n"), "apply", "-f", "-")
		return err
	}
	t.Cleanup(func() {
		if len(own)+len(settings) == 0 {
			return
		}
		changed(t, func() error {
			ctx := context.Background()
			if refused { // the others are there
				_, err := cluster.Try(ctx, "", "delete", "smi", "--all", "-n", c.home, "--wait")
				return err
			}
			if len(own) > 0 {
				if _, err := cluster.Try(ctx, text, "delete", "--ignore-not-found", "--wait", "-f", "-"); err != nil {
					return err
				}
			}
			if len(settings) > 0 {
				_, err := cluster.Try(ctx, "", "annotate", "namespace", c.home, "fairlead.io/default-deny-", "fairlead.io/smi-exempt-sources-")
				return err
			}
			return nil
		})
	})
	if refused {
		if err := applied(); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("it is applied: %v, want %s", err, said)
		}
		return
	}
	if len(own)+len(settings) > 0 {
		changed(t, applied)
	}
	if strings.Contains(text, "kind: Pod\n") {
		for _, ns := range namespacesOf.FindAllStringSubmatch(text, -1) {
			ready(t, ns[1])
		}
	}
	testcluster.Eventually(t, time.Minute, c.about, func() error { return ask(t, c.home, c.lines) })
}

var namespacesOf = regexp.MustCompile(`kind: Namespace\nmetadata: {name: ([a-z0-9-]+)`)

// Containers of the lab are images here.
var loadContainer, echoContainer = regexp.MustCompile(`(?m)^  containers: \[\{name: main, image: fairlead/load\}\]$`), regexp.MustCompile(`(?m)^    image: fairlead/echo$`)

// forCluster makes a manifest of the lab one of a cluster: its images, and the accounts of
// its pods.
func forCluster(text string) string {
	text = loadContainer.ReplaceAllString(text, `  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "fairlead.local/lab:1", imagePullPolicy: Never, command: [load]}]`)
	text = echoContainer.ReplaceAllString(text, `    image: fairlead.local/lab:1
    imagePullPolicy: Never
    args: [-port, 8080=http, -port, 8090=http, -port, 9000=tcp, -port, 5353=udp]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: VERSION, valueFrom: {fieldRef: {fieldPath: "metadata.labels['version']"}}}
    - {name: FAIRLEAD_POD, value: '{"pod": "$(POD)", "labels": {"version": "$(VERSION)"}}'}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}`)
	text = serviceSpec.ReplaceAllString(text, "${1}  ipFamilyPolicy: PreferDualStack\n") // as the lab's are
	var accounts []string
	for doc := range strings.SplitSeq(text, "\n---\n") {
		a := account.FindStringSubmatch(doc)
		if m := meta.FindStringSubmatch(doc); m != nil && a != nil {
			accounts = append(accounts, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\n---\n", a[1], m[1]))
		}
	}
	slices.Sort(accounts)
	head := strings.Join(slices.Compact(accounts), "")
	if head == "" {
		return text
	}
	// After the namespaces that they are in.
	if at := strings.Index(text, "kind: Namespace"); at >= 0 {
		end := at + strings.Index(text[at:], "---\n") + len("---\n")
		return text[:end] + head + text[end:]
	}
	return head + text
}

var (
	account = regexp.MustCompile(`serviceAccountName: (\S+)`)
	// serviceSpec is a Service up to its spec's fields.
	serviceSpec = regexp.MustCompile(`(?m)(^kind: Service\nmetadata: .*\nspec:\n)`)
	meta        = regexp.MustCompile(`namespace: ([a-z0-9-]+)`)
)

// changed makes a change, and waits until both agents have taken it up, or have seen none.
func changed(t *testing.T, change func() error) {
	t.Helper()
	before := map[string]string{}
	for _, node := range nodes {
		before[node], _ = revision(node)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(15 * time.Second) // machines are slow
	testcluster.Eventually(t, 60*time.Second, "agents take it up", func() error {
		for _, node := range nodes {
			now, err := revision(node)
			if err == nil && now == before[node] && time.Now().Before(deadline) {
				err = fmt.Errorf("%s has seen nothing new", node)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// revision is what an agent has applied, an error if that is not all that it has read.
func revision(node string) (string, error) {
	out, err := enter(context.Background(), "", node, binary(), "status", "-o", "json")
	if err != nil {
		return "", err
	}
	var all []struct{ Revision, Applied, Problem string }
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	if s := all[0]; s.Applied != s.Revision || s.Problem != "" {
		return "", fmt.Errorf("%s has applied %s of %s: %s", node, s.Applied, s.Revision, s.Problem)
	}
	return all[0].Revision, nil
}

// enter runs a command on a node, or in the network beside the nodes.
func enter(ctx context.Context, stdin, place string, args ...string) (string, error) {
	cmd := entering(ctx, place, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	return string(out), err
}

// ask sends lines, those of one source after the other in one go, and judges what comes.
func ask(t *testing.T, home string, all []line) error {
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].source == all[0].source {
			n++
		}
		if err := askFrom(t, home, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func askFrom(t *testing.T, home string, batch []line) error {
	requests := make([]request, len(batch))
	for i, l := range batch {
		requests[i] = l.request
		var err error
		if requests[i].URL, err = resolved(t.Context(), home, l.request.URL); err != nil {
			return err
		}
	}
	in, err := json.Marshal(requests)
	if err != nil {
		return err
	}
	var out string
	switch source := batch[0].source; {
	case source == "outside":
		out, err = enter(t.Context(), string(in), "control-plane", filepath.Join(cluster.Folder(), "build/request"))
	case slices.Contains(nodes, source):
		out, err = enter(t.Context(), string(in), source, filepath.Join(cluster.Folder(), "build/request"))
	default:
		namespace, pod, elsewhere := strings.Cut(source, "/")
		if !elsewhere {
			namespace, pod = home, source
		}
		out, err = cluster.Try(t.Context(), string(in), "exec", "-i", "-n", namespace, pod, "--", "request")
	}
	if err != nil && out == "" {
		return err
	}
	answers, err := parseAnswers(out)
	if err != nil {
		return err
	}
	for i, l := range batch {
		var mine []answer
		for _, a := range answers {
			if a.Request == i {
				mine = append(mine, a)
			}
		}
		if err := l.judge(mine); err != nil {
			return err
		}
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{(service/)?([a-z0-9-]+)(\|6)?\}`)

// resolved puts an address where a URL says {POD}, {POD|6} or {service/NAME}.
func resolved(ctx context.Context, home, url string) (string, error) {
	m := placeholder.FindStringSubmatch(url)
	if m == nil {
		return url, nil
	}
	kind, path := "pod", "{.status.podIPs[*].ip}"
	if m[1] != "" {
		kind, path = "service", "{.spec.clusterIPs[*]}"
	}
	ips, err := cluster.Try(ctx, "", "get", kind, "-n", home, m[2], "-o", "jsonpath="+path)
	if err != nil {
		return "", err
	}
	for ip := range strings.FieldsSeq(ips) {
		if six := strings.Contains(ip, ":"); six == (m[3] != "") {
			if six {
				ip = "[" + ip + "]"
			}
			return strings.Replace(url, m[0], ip, 1), nil
		}
	}
	return "", fmt.Errorf("%s %s has no such address: %s", kind, m[2], ips)
}

// weightsUnderLoad changes a split while requests come, in every version that there is:
// none fails, and each change holds.
func weightsUnderLoad(t *testing.T) {
	const home = "smi-weights"
	base, err := os.ReadFile(filepath.Join(root, "conformance/cases/base/smi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	namespace(t, home)
	apply(t, forCluster(strings.ReplaceAll(string(base), "$ns", home)))
	ready(t, home)
	weigh := func(version string, v1, v2 any) {
		changed(t, func() error {
			_, err := cluster.Try(t.Context(), fmt.Sprintf(`{"apiVersion": "split.smi-spec.io/%s", "kind": "TrafficSplit", "metadata": {"name": "web", "namespace": %q},
				"spec": {"service": "web", "backends": [{"service": "web-v1", "weight": %v}, {"service": "web-v2", "weight": %v}]}}`, version, home, v1, v2), "apply", "-f", "-")
			return err
		})
	}
	weigh("v1alpha4", 1, 1)
	type summary struct {
		Requests, OK, Failed uint64
		Failures             map[string]uint64
		Final                bool
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := make(chan string, 1)
	const length = 60 * time.Second
	begun := time.Now()
	go func() {
		out, err := cluster.Try(ctx, "", "exec", "-n", home, "client", "--", "load", "-url", "http://web/", "-rate", "100", "-fresh", "0.2", "-duration", length.String())
		if out == "" && err != nil {
			out = err.Error()
		}
		sent <- out
	}()
	steps, changes := []struct {
		version string
		v1, v2  any
		share   string
	}{
		{"v1alpha1", `"250m"`, `"750m"`, "v1 25% v2 75%"},
		{"v1alpha2", 3, 1, "v1 75% v2 25%"},
		{"v1alpha3", 1, 0, "v1"},
		{"v1alpha4", 0, 1, "v2"},
		{"v1alpha1", 1, `"1000m"`, "v1 50% v2 50%"},
		{"v1alpha4", 90, 10, "v1 90% v2 10%"},
	}, 0
	for time.Since(begun) < length-10*time.Second || changes < len(steps) {
		s := steps[changes%len(steps)]
		weigh(s.version, s.v1, s.v2)
		changes++
		l, err := parseLine("other GET http://web/ *60 -> 200 " + s.share)
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(t, home, []line{l}); err != nil {
			t.Errorf("after change %d (%s %v to %v): %v", changes, s.version, s.v1, s.v2, err)
		}
	}
	var final summary
	for text := range strings.Lines(<-sent) {
		if err := json.Unmarshal([]byte(text), &final); err != nil {
			t.Fatalf("load: %v: %s", err, text)
		}
	}
	t.Logf("%d changes, %d requests, %d failed %v", changes, final.Requests, final.Failed, final.Failures)
	if !final.Final || final.Failed != 0 || final.OK != final.Requests || final.Requests < 1000 {
		t.Errorf("load: %+v", final)
	}
}
