// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// result is what the lab's call prints for each request.
type result struct {
	Status int
	Answer *struct{ Pod, Node, Peer string }
	Error  string
	Detail string
	Millis float64
}

// call sends requests from a pod, all of which must be answered with 200.
func (c cluster) call(t *testing.T, namespace, pod string, args ...string) []result {
	t.Helper()
	out := c.kubectl(t, append([]string{"exec", "-n", namespace, pod, "--", "call"}, args...)...)
	return results(t, out)
}

func results(t *testing.T, out string) []result {
	t.Helper()
	var all []result
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var r result
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read results: %v: %s", err, out)
		}
		if r.Status != 200 || r.Answer == nil {
			t.Fatalf("answered with %d, %s %s", r.Status, r.Error, r.Detail)
		}
		all = append(all, r)
	}
}

// pods answered, each once, sorted.
func pods(all []result) []string {
	var names []string
	for _, r := range all {
		names = append(names, r.Answer.Pod)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// addresses of a pod or a service, IPv4 first.
func (c cluster) addresses(t *testing.T, namespace, kind, name, path string) (four, six string) {
	t.Helper()
	// Of a pod whose node was away they are gone for a moment.
	eventually(t, 30*time.Second, "addresses of "+kind+" "+name, func() error {
		four, six = "", ""
		for a := range strings.FieldsSeq(c.kubectl(t, "get", "-n", namespace, kind, name, "-o", "jsonpath={"+path+"}")) {
			if ip := net.ParseIP(a); ip.To4() != nil {
				four = a
			} else if ip != nil {
				six = a
			}
		}
		if four == "" || six == "" {
			return fmt.Errorf("%q and %q: want one of each family", four, six)
		}
		return nil
	})
	return four, six
}

// What a user of Kubernetes takes for granted: pods on both nodes reach one another and
// services, by address and by name, over both families.
func TestPodsAndServices(t *testing.T) {
	podsAndServices(t, main)
}

// The same with what a cluster may have in place of the defaults.
func TestOtherNetwork(t *testing.T) {
	c := cluster{"fairlead-other", []string{"PROXY_MODE=nftables", "CNI=bridge"}}
	t.Cleanup(func() {
		if out, err := c.script(context.Background(), "down.sh").CombinedOutput(); err != nil {
			t.Errorf("down.sh: %v\n%s", err, out)
		}
	})
	podsAndServices(t, c)
	if rules, _ := c.run(t, "enter.sh", "node-1", "nft", "list", "tables"); !strings.Contains(rules, "ip6 kube-proxy") {
		t.Errorf("kube-proxy does not use nftables: %s", rules)
	}
	if links, _ := c.run(t, "enter.sh", "node-1", "ip", "link", "show", "master", "cni0"); links == "" {
		t.Error("no pod is on the bridge")
	}
	// What it was put up with stays.
	if out, err := (cluster{name: c.name}).script(t.Context(), "up.sh").CombinedOutput(); err == nil || !strings.Contains(string(out), "take it away first") {
		t.Errorf("up.sh with other settings: %v\n%s", err, out)
	}
}

func podsAndServices(t *testing.T, c cluster) {
	t.Logf("up after %s", c.up(t).Round(time.Second))
	if again := c.up(t); again > 20*time.Second {
		t.Errorf("up.sh took %s where everything was up", again)
	}
	const ns = "smoke"
	c.apply(t, ns, "smoke.yaml")
	c.kubectl(t, "wait", "-n", ns, "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	both := []string{"server-1", "server-2"}

	four, six := c.addresses(t, ns, "service", "server", ".spec.clusterIPs[*]")
	for what, url := range map[string]string{
		"IPv4":       "http://" + four,
		"IPv6":       "http://[" + six + "]",
		"short name": "http://server",
		"full name":  "http://server.smoke.svc.cluster.local",
		"headless":   "http://server-headless:8080",
	} {
		t.Run("service by "+what, func(t *testing.T) {
			for _, client := range both {
				// A server on each node: some of the requests cross. That a pod is ready gets
				// around to where services are made in its own time.
				eventually(t, 20*time.Second, "from "+client, func() error {
					got := pods(c.call(t, ns, client, "-repeat", "40", url))
					// Without an address of its own, a client stays with whom it finds first.
					if slices.Equal(got, both) || what == "headless" {
						return nil
					}
					return fmt.Errorf("%v answered, want %v", got, both)
				})
			}
		})
	}

	for i, server := range both {
		client := both[1-i]
		t.Run("pod on the other node, from "+client, func(t *testing.T) {
			server4, server6 := c.addresses(t, ns, "pod", server, ".status.podIPs[*].ip")
			client4, client6 := c.addresses(t, ns, "pod", client, ".status.podIPs[*].ip")
			for to, from := range map[string]string{server4: client4, server6: client6} {
				for _, r := range c.call(t, ns, client, "http://"+net.JoinHostPort(to, "8080")) {
					if peer, _, _ := net.SplitHostPort(r.Answer.Peer); r.Answer.Pod != server || peer != from {
						t.Errorf("%s answered %s, want %s and %s", r.Answer.Pod, peer, server, from)
					}
				}
			}
			if r := c.call(t, ns, client, "http://"+net.JoinHostPort(server4, "8080")); r[0].Answer.Node != fmt.Sprintf("node-%d", i+1) {
				t.Errorf("%s is on %s", server, r[0].Answer.Node)
			}
		})
	}

	t.Run("NodePort, from outside", func(t *testing.T) {
		port := c.kubectl(t, "get", "-n", ns, "service", "server-node-port", "-o", "jsonpath={.spec.ports[0].nodePort}")
		for _, node := range []string{"10.240.0.1", "10.240.0.2", "fd40::1", "fd40::2"} {
			out, _ := c.run(t, "enter.sh", "control-plane", c.folder()+"/build/call", "-repeat", "40", "http://"+net.JoinHostPort(node, port))
			if got := pods(results(t, out)); !slices.Equal(got, both) {
				t.Errorf("at %s, %v answered, want %v", node, got, both)
			}
		}
	})
	t.Run("name of nothing", func(t *testing.T) {
		if out, err := c.try(t.Context(), "", "exec", "-n", ns, "server-1", "--", "call", "http://nothing"); err == nil || !strings.Contains(out, `"dns"`) {
			t.Errorf("got %s, %v: want an error of the class dns", out, err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		if got := c.kubectl(t, "logs", "-n", ns, "talker"); got != "hello from talker" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		out, err := c.try(t.Context(), "in", "exec", "-i", "-n", ns, "server-2", "--", "sh", "-c", "cat; exit 7")
		if out != "in" || err == nil || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("token", func(t *testing.T) {
		token := c.kubectl(t, "exec", "-n", ns, "server-1", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
		review := fmt.Sprintf(`{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": %q}}`, token)
		who, err := c.try(t.Context(), review, "create", "-f", "-", "-o", "jsonpath={.status.user.username}")
		if err != nil || who != "system:serviceaccount:smoke:default" {
			t.Errorf("token is of %q, %v", who, err)
		}
	})
}

// A node that dies loses no pods: it comes back with them.
func TestNodeKilled(t *testing.T) {
	c := main
	c.up(t)
	const ns = "killed"
	c.apply(t, ns, "smoke.yaml")
	c.kubectl(t, "wait", "-n", ns, "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	c.run(t, "kill.sh", "node-1")
	if _, err := c.script(t.Context(), "enter.sh", "node-1", "true").Output(); err == nil {
		t.Error("node-1 can be entered after it was killed")
	}
	c.call(t, ns, "server-2", "http://localhost:8080")
	c.kubectl(t, "wait", "--for=condition=Ready=Unknown", "node/node-1", "--timeout=90s")
	c.up(t)
	eventually(t, 90*time.Second, "server-1 on a node that is back", func() error {
		_, err := c.try(t.Context(), "", "exec", "-n", ns, "server-1", "--", "call", "http://server")
		return err
	})
	four, _ := c.addresses(t, ns, "pod", "server-1", ".status.podIPs[*].ip")
	eventually(t, 30*time.Second, "server-1 from the other node", func() error {
		_, err := c.try(t.Context(), "", "exec", "-n", ns, "server-2", "--", "call", "http://"+four+":8080")
		return err
	})
}
