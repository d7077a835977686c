// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// world is the cluster, with the agents of its nodes.
type world struct {
	b      *testing.B
	c      testcluster.Cluster
	api    *api
	ctx    context.Context
	agents map[string]*http.Client // by node
	// client are the containers that requests are sent from, and address the services'.
	client, address map[string]string
	servers         map[string][]at // the pods of the services that are used
	execs           atomic.Int64
	table           table
}

// dial speaks to an agent through the files of its container, which follow the process.
func (w *world) dial(node string) *http.Client {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		p := w.find(node, "/bin/fairlead", "agent", "--node="+node)
		if p == 0 {
			return nil, errors.New("there is no agent on " + node)
		}
		return (&net.Dialer{}).DialContext(ctx, "unix", p.file("root/run/fairlead/agent.sock"))
	}}}
	w.b.Cleanup(client.CloseIdleConnections)
	return client
}

func ask(client *http.Client, path string, into any) error {
	resp, err := client.Get("http://agent" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

type readiness struct {
	Ready             bool
	Why               string
	Revision, Applied string
}

func (r readiness) applied() bool { return r.Ready && r.Revision == r.Applied }

func (w *world) readiness(node string) readiness {
	w.b.Helper()
	var r readiness
	if err := ask(w.agents[node], "/ready", &r); err != nil {
		w.b.Fatalf("agent of %s: %v", node, err)
	}
	return r
}

type counters struct{ Resources, Removed, Responses, Bytes, Acks, Nacks int }

type served struct {
	Resources map[string]int
	Counters  counters
}

func (s served) all() int {
	n := 0
	for _, of := range s.Resources {
		n += of
	}
	return n
}

type status struct {
	Objects, Errors, Warnings int
	Feed                      served
	Proxy                     *struct {
		InUse  int
		Served served
		Envoy  struct{ PID int }
	}
	Kernel struct {
		Maps []struct {
			Name    string
			Entries int
		}
	}
	Writes map[string]int
}

func (s status) writes() int {
	n := 0
	for _, of := range s.Writes {
		n += of
	}
	return n
}

func (s status) entries() int {
	n := 0
	for _, of := range s.Kernel.Maps {
		n += of.Entries
	}
	return n
}

func (w *world) status(node string) status {
	w.b.Helper()
	var s status
	if err := ask(w.agents[node], "/status", &s); err != nil {
		w.b.Fatalf("agent of %s: %v", node, err)
	}
	if s.Proxy == nil {
		w.b.Fatalf("the agent of %s does not reach its proxy", node)
	}
	return s
}

// settled waits until all agents have applied all, and nothing more comes for a while.
func (w *world) settled(objects int) {
	w.b.Helper()
	var last map[string]readiness
	since := time.Now()
	testcluster.Eventually(w.b, 10*time.Minute, "the agents", func() error {
		now := map[string]readiness{}
		for _, node := range nodes {
			now[node] = w.readiness(node)
		}
		same := last != nil
		for _, node := range nodes {
			same = same && now[node] == last[node] && now[node].applied()
		}
		if last = now; !same {
			since = time.Now()
		}
		if time.Since(since) < 3*time.Second {
			return fmt.Errorf("they are at %v", now)
		}
		for _, node := range nodes {
			if s := w.status(node); s.Objects < objects {
				since = time.Now()
				return fmt.Errorf("%s has %d objects of %d", node, s.Objects, objects)
			}
		}
		return nil
	})
}

// answer is what the lab's call prints of a request.
type answer struct {
	Status  int
	Headers map[string][]string
	Answer  *struct{ Pod, Node string }
	Error   string
	Detail  string
}

// send sends requests to a service from a pod of a node.
func (w *world) send(node, service string, times int) ([]answer, error) {
	args := []string{node, "ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", fmt.Sprintf("scale-%d", w.execs.Add(1)), w.client[node],
		"call", "-repeat", fmt.Sprint(times), "-host", service, "http://" + w.address[service]}
	cmd := exec.CommandContext(w.ctx, filepath.Join(w.c.Root, "hack/cluster/enter.sh"), args...)
	cmd.Env = append(cmd.Environ(), "CLUSTER="+w.c.Name)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && out.Len() == 0 { // it fails also for an answer that is an error
		return nil, fmt.Errorf("call %s from %s: %w\n%s", service, node, err, errs.String())
	}
	var all []answer
	for d := json.NewDecoder(&out); ; {
		var a answer
		if err := d.Decode(&a); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("call %s from %s: %w", service, node, err)
		}
		all = append(all, a)
	}
	if len(all) != times {
		return nil, fmt.Errorf("call %s from %s: %d answers", service, node, len(all))
	}
	return all, nil
}

// holds looks whether what was applied is so, by requests from both nodes.
func (w *world) holds(service string, times int, is func(answer) error) {
	w.b.Helper()
	failed := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() {
			all, err := w.send(node, service, times)
			for _, a := range all {
				if err == nil {
					if err = is(a); err != nil {
						err = fmt.Errorf("from %s: %w: %d %s %s %v", node, err, a.Status, a.Error, a.Detail, a.Answer)
					}
				}
			}
			failed <- err
		}()
	}
	var all []error
	for range nodes {
		all = append(all, <-failed)
	}
	if err := errors.Join(all...); err != nil {
		w.b.Fatalf("%s: %v", service, err)
	}
}

func succeeds(a answer) error {
	if a.Status != http.StatusOK {
		return errors.New("it fails")
	}
	return nil
}

// operator is what the operators tell of themselves together: one leads.
type operatorState struct {
	Computed int
	Statuses struct{ Writes, Failed, Waiting int }
	Events   struct{ Writes, Failed, Waiting int }
}

func (w *world) operator() operatorState {
	w.b.Helper()
	var sum operatorState
	for pod := range strings.FieldsSeq(w.c.Kubectl(w.b, "get", "pods", "-n", systemIn, "-l", "app.kubernetes.io/component=operator", "-o", "name")) {
		text, err := w.api.get(w.ctx, "/api/v1/namespaces/"+systemIn+"/pods/"+strings.TrimPrefix(pod, "pod/")+":8086/proxy/status")
		if err != nil {
			w.b.Fatal(err)
		}
		var s operatorState
		if err := json.Unmarshal(text, &s); err != nil {
			w.b.Fatal(err)
		}
		sum.Computed = max(sum.Computed, s.Computed)
		sum.Statuses.Writes += s.Statuses.Writes
		sum.Statuses.Failed += s.Statuses.Failed
		sum.Statuses.Waiting += s.Statuses.Waiting
		sum.Events.Writes += s.Events.Writes
	}
	return sum
}

// leader is the operator's process that writes.
func (w *world) leader() process {
	w.b.Helper()
	holder := w.c.Kubectl(w.b, "get", "lease", "-n", systemIn, "fairlead-operator", "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	node := w.c.Kubectl(w.b, "get", "pod", "-n", systemIn, pod, "-o", "jsonpath={.spec.nodeName}")
	return w.must(node, "/bin/fairlead", "operator", "--in-cluster")
}

// table is what is printed in the end: a line for each figure, a column for each state of
// the cluster.
type table struct {
	names []string
	cells map[string][2]string
	value map[string][2]float64
}

const (
	small = 0
	big   = 1
)

// tell notes a figure of a cluster's state.
func (t *table) tell(state int, name string, value float64) {
	if t.cells == nil {
		t.cells, t.value = map[string][2]string{}, map[string][2]float64{}
	}
	if _, ok := t.cells[name]; !ok {
		t.names = append(t.names, name)
	}
	text := fmt.Sprintf("%.3g", value)
	if value >= 100 || value == float64(int(value)) {
		text = fmt.Sprintf("%.0f", value)
	}
	c, v := t.cells[name], t.value[name]
	c[state], v[state] = text, value
	t.cells[name], t.value[name] = c, v
}

// most notes a figure unless a larger one is noted.
func (t *table) most(state int, name string, value float64) {
	if _, ok := t.cells[name]; !ok || value > t.value[name][state] {
		t.tell(state, name, value)
	}
}

func (t *table) String() string {
	out := "| | before | filled | ratio |\n|---|---|---|---|\n"
	for _, name := range t.names {
		c, v, ratio := t.cells[name], t.value[name], ""
		if c[small] != "" && c[big] != "" && v[small] > 0 {
			ratio = fmt.Sprintf("%.3g", v[big]/v[small])
		}
		out += fmt.Sprintf("| %s | %s | %s | %s |\n", name, c[small], c[big], ratio)
	}
	return out
}
