// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fromAPIServer has agents read the API server themselves, as the service account that
// testdata/trust.yaml has.
func (f *fleet) fromAPIServer(t *testing.T) {
	t.Helper()
	f.c.kubectl(t, "apply", "-f", "testdata/trust.yaml")
	t.Cleanup(func() {
		if _, err := f.c.try(context.Background(), "", "delete", "-f", "testdata/trust.yaml", "--wait=false", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	f.c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	file := filepath.Join(f.c.folder(), "agent.kubeconfig")
	if err := os.WriteFile(file, []byte(f.c.kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(args ...string) { f.c.kubectl(t, append(args, "--kubeconfig", file)...) }
	user := f.c.kubectl(t, "config", "view", "-o", "jsonpath={.contexts[0].context.user}")
	where := f.c.kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].name}")
	config("config", "unset", "users."+user)
	config("config", "set-credentials", user, "--token", f.c.kubectl(t, "create", "token", "-n", "fairlead-system", "fairlead-agent"))
	config("config", "set-cluster", where, "--server", "https://10.240.0.254:6443")
	f.kubeconfig = file
}

// apply applies a manifest of the test's own.
func (f *fleet) apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := f.c.try(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// signal sends one to what runs on a node.
func (f *fleet) signal(t *testing.T, node, what, signal string) {
	t.Helper()
	command := fmt.Sprintf("kill -%s $(cat /run/fairlead-%s.pid)", signal, what)
	if out, err := f.c.script(context.Background(), "enter.sh", node, "sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("signal %s of %s: %v\n%s", what, node, err, out)
	}
}

// believes waits until the agent of a node takes another one's word, or no more.
func (f *fleet) believes(t *testing.T, node, other string, yes bool) (after time.Duration, why string) {
	t.Helper()
	begun := time.Now()
	eventually(t, 90*time.Second, fmt.Sprintf("%s believes %s: %t", node, other, yes), func() error {
		s, err := f.status(node)
		if err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.Node == other {
				if why = p.Behind; (why == "") == yes {
					return nil
				}
				return fmt.Errorf("it says %q", p.Behind)
			}
		}
		return fmt.Errorf("it knows of %v", s.Peers)
	})
	return time.Since(begun), why
}

// sending is a load generator in a pod.
type sending struct {
	cmd *exec.Cmd
	out bytes.Buffer
	end func() sendingSummary
}

type sendingSummary struct {
	Requests, OK, Failed, Violations uint64
	Failures, Refusals               map[string]uint64
	P50, P99                         float64
	Final                            bool
}

// send sends requests from a pod (namespace/name) until it is ended.
func (f *fleet) send(t *testing.T, from string, args ...string) *sending {
	t.Helper()
	namespace, pod, _ := strings.Cut(from, "/")
	cmd := exec.Command(filepath.Join(f.c.folder(), "bin/kubectl"), append([]string{"exec", "-i", "-n", namespace, pod, "--", "sh", "-c", untilEnded, "load"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(f.c.folder(), "kubeconfig"))
	return sendBy(t, cmd)
}

// untilEnded has load end when nobody writes to it any more, whatever becomes of the test.
const untilEnded = `load "$@" & read x; kill -INT $!; wait $!`

// sendBy sends requests by a command with untilEnded in it.
func sendBy(t *testing.T, cmd *exec.Cmd) *sending {
	t.Helper()
	s := &sending{cmd: cmd}
	s.cmd.Stdout = &s.out
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	s.end = func() (last sendingSummary) {
		if done {
			return
		}
		done = true
		_ = in.Close()
		_ = s.cmd.Wait() // the program says itself that not all was well
		for d := json.NewDecoder(&s.out); ; {
			var one sendingSummary
			if d.Decode(&one) != nil {
				return last
			}
			last = one
		}
	}
	t.Cleanup(func() { s.end() })
	return s
}

// noneFailed ends a load of which every request must have been answered as it should.
func (s *sending) noneFailed(t *testing.T, what string) {
	t.Helper()
	got := s.end()
	t.Logf("%s: %d requests, %d failed, %d forbidden ones got through; p50 %.1f ms, p99 %.1f ms", what, got.Requests, got.Failed, got.Violations, got.P50, got.P99)
	if got.Failed > 0 || got.Violations > 0 || got.Requests < 100 || !got.Final {
		t.Errorf("%s: %+v", what, got)
	}
}

const trustPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guarded, namespace: mesh}
spec:
  selector: {matchLabels: {app: guarded}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/mesh/sa/client]}}]
    to: [{operation: {paths: [%s]}}]
`

// identityPolicy asks for nothing that takes a proxy to see.
const identityPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: mesh}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/mesh/sa/client]}}]}]
`

// believed counts what got in at a node because another one had checked it, and what was
// judged there.
func (f *fleet) believed(t *testing.T, node string) (checked, inbound int) {
	t.Helper()
	s, err := f.status(node)
	if err != nil {
		t.Fatal(err)
	}
	return s.Kernel.Counters["checked"], s.Kernel.Counters["inbound"]
}

// A node whose agent hangs goes on with the policy that it has. The others notice, judge
// its connections themselves, and nobody loses a request.
func TestANodeThatIsBehind(t *testing.T) {
	f := newFleet(t, main)
	f.deploy(t)
	f.fromAPIServer(t)
	f.apply(t, fmt.Sprintf(trustPolicy, "/always, /open"))
	for _, n := range []string{"node-1", "node-2"} {
		f.start(t, n)
	}
	f.believes(t, "node-1", "node-2", true)
	f.believes(t, "node-2", "node-1", true)
	guarded, six := f.c.addresses(t, "mesh", "pod", "guarded-1", ".status.podIPs[*].ip")
	service := "http://guarded/always"
	f.expect(t, "mesh/client-2", []string{"guarded-1", "guarded-2"}, "-repeat", "20", service)
	f.expect(t, "mesh/client-2", []string{"403"}, "-repeat", "20", "http://guarded/shut")

	allowed := f.send(t, "mesh/client-2", "-rate", "100", "-connections", "8", "-fresh", "0.1", "-url", "http://guarded/always", "-url", "http://web/v1")
	back := f.send(t, "mesh/client-1", "-rate", "50", "-url", "http://guarded/always?back")
	time.Sleep(3 * time.Second)
	before, _ := f.believed(t, "node-1")

	f.signal(t, "node-2", "agent", "STOP")
	t.Cleanup(func() { f.signal(t, "node-2", "agent", "CONT") })
	took, why := f.believes(t, "node-1", "node-2", false)
	t.Logf("node-1 takes node-2 for behind after %s: %s", took.Round(100*time.Millisecond), why)
	if took > 45*time.Second { // 15, on a machine with time
		t.Errorf("it took %s", took)
	}
	f.apply(t, fmt.Sprintf(trustPolicy, "/always"))
	// Connections that node-2's Envoy has take requests for 30 s at most. To a pod of its own
	// node it goes on by its own policy: nobody is there to know better.
	time.Sleep(35 * time.Second)
	for _, at := range []string{"http://" + guarded + ":8080/open", "http://[" + six + "]:8080/open"} {
		f.expect(t, "mesh/client-2", []string{"403"}, "-repeat", "20", at)
	}
	// By the service, where node-2's Envoy lets through what it should not any more.
	f.expect(t, "mesh/client-2", []string{"403", "guarded-2"}, "-repeat", "40", "http://guarded/open")
	shut := f.send(t, "mesh/client-2", "-rate", "50", "-forbid", "-url", "http://"+guarded+":8080/open", "-url", "http://["+six+"]:8080/open")
	time.Sleep(10 * time.Second)
	during, inbound := f.believed(t, "node-1")
	time.Sleep(5 * time.Second)
	if again, more := f.believed(t, "node-1"); more == inbound {
		t.Errorf("nothing came by the inbound listener of node-1 (%d); %d, %d and %d were let in as checked", inbound, before, during, again)
	}
	shut.noneFailed(t, "forbidden while node-2 is behind")

	// Without that, which a manual setting can have: what it lets through gets in.
	f.c.kubectl(t, "annotate", "node", "node-2", "fairlead.io/agent=true")
	time.Sleep(35 * time.Second) // connections that go by the inbound listener do so to their end
	f.expect(t, "mesh/client-2", []string{"guarded-1", "guarded-2"}, "-repeat", "40", "http://guarded/open")
	f.c.kubectl(t, "annotate", "node", "node-2", "fairlead.io/agent-")
	time.Sleep(35 * time.Second)
	f.expect(t, "mesh/client-2", []string{"403", "guarded-2"}, "-repeat", "40", "http://guarded/open")

	f.signal(t, "node-2", "agent", "CONT")
	took, _ = f.believes(t, "node-1", "node-2", true)
	t.Logf("node-1 believes node-2 again after %s", took.Round(100*time.Millisecond))
	shut = f.send(t, "mesh/client-2", "-rate", "50", "-forbid", "-url", "http://"+guarded+":8080/open", "-url", "http://["+six+"]:8080/open")
	time.Sleep(10 * time.Second)
	shut.noneFailed(t, "forbidden when it has come up with the others")
	allowed.noneFailed(t, "allowed, from the node that was behind")
	back.noneFailed(t, "allowed, to it")
}

// fromPort asks from a pod with a source port of its choice, and returns the status or,
// without an answer, the error.
func (f *fleet) fromPort(t *testing.T, from string, port int, to, path string) string {
	t.Helper()
	namespace, pod, _ := strings.Cut(from, "/")
	ask, err := json.Marshal([]map[string]any{{"url": "http://" + net.JoinHostPort(to, "8080") + path, "host": "guarded", "sourcePort": port, "timeout": "2s"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.c.try(t.Context(), string(ask), "exec", "-i", "-n", namespace, pod, "--", "request")
	var got []struct {
		Status       int
		Error, Local string
	}
	if jerr := json.Unmarshal([]byte(out), &got); err != nil || jerr != nil || len(got) != 1 {
		t.Fatalf("ask from port %d: %v, %v: %s", port, err, jerr, out)
	}
	if got[0].Error != "" {
		return got[0].Error
	}
	if !strings.HasSuffix(got[0].Local, ":"+strconv.Itoa(port)) {
		t.Errorf("it asked from %s, not from port %d", got[0].Local, port)
	}
	return strconv.Itoa(got[0].Status)
}

// A cluster of which one node has Fairlead is correct, only slower: the node that has it
// judges all that comes from the other one, by whatever port. When the other one gets it
// nobody loses a request.
func TestHalfInstalled(t *testing.T) {
	f := newFleet(t, main)
	f.deploy(t)
	f.fromAPIServer(t)
	f.apply(t, fmt.Sprintf(trustPolicy, "/always")+"---\n"+identityPolicy)
	for _, n := range nodes {
		f.uninstallAtEnd(t, n)
	}
	f.start(t, "node-1")
	four, six := f.c.addresses(t, "mesh", "pod", "guarded-1", ".status.podIPs[*].ip")
	at := func(path string) []string {
		return []string{"-url", "http://" + four + ":8080" + path, "-url", "http://[" + six + "]:8080" + path}
	}
	for _, ip := range []string{four, "[" + six + "]"} {
		f.expect(t, "mesh/client-2", []string{"guarded-1"}, "-repeat", "10", "http://"+ip+":8080/always")
		f.expect(t, "mesh/client-2", []string{"403"}, "-repeat", "10", "http://"+ip+":8080/shut")
		f.expect(t, "mesh/other-2", []string{"403"}, "-repeat", "10", "http://"+ip+":8080/always")
		f.expect(t, "plain/outsider-2", []string{"403"}, "-repeat", "10", "http://"+ip+":8080/always")
	}
	// The ports by which proxies say that they have checked are nothing that a pod of a bare
	// node could use, nor that of the inbound listener.
	for _, port := range []int{61000, 61700, 62399, 62400, 63263} {
		if got := f.fromPort(t, "mesh/client-2", port, four, "/shut"); got != "403" {
			t.Errorf("from port %d of a bare node: %q", port, got)
		}
		if got := f.fromPort(t, "mesh/client-2", port+1000, four, "/always"); port < 62000 && got != "200" {
			t.Errorf("from port %d of a bare node: %q", port+1000, got)
		}
	}
	// What the node's pods send to the bare one is judged where they are.
	f.expect(t, "mesh/client-1", []string{"guarded-1", "guarded-2"}, "-repeat", "20", "http://guarded/always")
	f.expect(t, "mesh/other-1", []string{"403"}, "-repeat", "20", "http://guarded/always")

	loads := map[string]*sending{
		"allowed, from the node that gets it":      f.send(t, "mesh/client-2", append(at("/always"), "-rate", "60", "-fresh", "0.2")...),
		"allowed by who asks, kept open":           f.send(t, "mesh/client-2", "-rate", "30", "-url", "http://web/"),
		"to who has no policy, kept open":          f.send(t, "mesh/client-2", "-rate", "30", "-url", "http://public/"),
		"allowed, to it":                           f.send(t, "mesh/client-1", "-rate", "60", "-fresh", "0.2", "-url", "http://guarded/always", "-url", "http://web/v2"),
		"forbidden, from the node that gets it":    f.send(t, "mesh/client-2", append(at("/shut"), "-rate", "30", "-forbid", "-fresh", "0.2")...),
		"forbidden to others, from the other node": f.send(t, "mesh/other-1", "-rate", "30", "-forbid", "-url", "http://guarded/always"),
	}
	// What is open, straight, to a pod that comes under a policy of requests cannot be judged any
	// more: it is cut, and the request on it, or the next one, is lost. See kube/README.md.
	// So each connection of that moment costs a request at most, and none that is opened later does.
	open := map[int]*sending{}
	for n, share := range map[int]string{4: "0", 1: "1"} { // kept open; a connection for each request, one after another
		open[n] = f.send(t, "mesh/client-2", "-rate", "30", "-connections", strconv.Itoa(n), "-fresh", share, "-url", "http://guarded/always")
	}
	time.Sleep(3 * time.Second)
	begun := time.Now()
	f.start(t, "node-2")
	f.believes(t, "node-1", "node-2", true)
	t.Logf("node-1 believes node-2 %s after its agent was started", time.Since(begun).Round(100*time.Millisecond))
	time.Sleep(10 * time.Second)
	for what, l := range loads {
		l.noneFailed(t, what)
	}
	for n, l := range open {
		got := l.end()
		t.Logf("to pods of the node that gets it, by %d connections at a time: %d requests, failed: %v", n, got.Requests, got.Failures)
		if cut := got.Failures["reset"] + got.Failures["closed"]; got.Failed != cut || cut > uint64(n) || got.Requests < 100 || !got.Final {
			t.Errorf("%+v: more than one for each connection", got)
		}
	}
	// From now on its own kernel keeps those ports from its pods.
	if got := f.fromPort(t, "mesh/client-2", 61001, four, "/always"); got != "timeout" {
		t.Errorf("a pod of a node with Fairlead uses its proxy's ports: %q", got)
	}
	checked, _ := f.believed(t, "node-1")
	f.ask(t, "mesh/client-2", "-repeat", "20", "http://"+four+":8080/always")
	if now, _ := f.believed(t, "node-1"); now == checked {
		t.Errorf("nothing of what node-2 has checked counts at node-1 (%d)", now)
	}
	// A Lease that is gone is a node without an agent: correct again, before and after.
	f.end(t, "node-2", "agent")
	f.c.kubectl(t, "delete", "lease", "-n", "fairlead-system", "node-2")
	eventually(t, 30*time.Second, "node-1 knows of no agent on node-2", func() error {
		s, err := f.status("node-1")
		if err != nil || len(s.Peers) > 0 {
			return fmt.Errorf("%v %w", s.Peers, err)
		}
		return nil
	})
	f.expect(t, "mesh/client-2", []string{"guarded-1"}, "-repeat", "10", "http://"+four+":8080/always")
	f.expect(t, "mesh/client-2", []string{"403"}, "-repeat", "10", "http://"+four+":8080/shut")
	f.expect(t, "mesh/other-2", []string{"403"}, "-repeat", "10", "http://"+four+":8080/always")
}
