// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
)

// patience is how long what takes time by nature may take: mirrors that arrive,
// flows that are read out of the kernel.
const patience = 3 * time.Second

func TestCases(t *testing.T) { runTable(t, "cases") }

// TestSMI runs SMI's decision table.
func TestSMI(t *testing.T) { runTable(t, "smi") }

// TestLinkerd runs Linkerd's decision table.
func TestLinkerd(t *testing.T) { runTable(t, "linkerd") }

// runTable runs the cases of a folder: those that share a namespace together, the others
// each in its own.
func runTable(t *testing.T, table string) {
	shared := map[string][]*Case{}
	for _, file := range caseFiles(t, table) {
		c, err := ReadCase(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.Shared() {
			shared[c.Home] = append(shared[c.Home], c)
			continue
		}
		t.Run(c.Name, func(t *testing.T) { lives(t).runCase(t, c) })
	}
	for _, home := range slices.Sorted(maps.Keys(shared)) {
		t.Run(home, func(t *testing.T) { lives(t).runShared(t, shared[home]) })
	}
	if theWorld != nil && !t.Failed() {
		theWorld.nothingRetires(t)
	}
}

// namespaceFile is the manifest in which a case that shares its namespace changes it.
const namespaceFile = "namespace.yaml"

// runShared puts up what the cases use once, and each case's own manifests on top.
func (w *world) runShared(t *testing.T, cases []*Case) {
	first := cases[0]
	home, used := first.Namespace(), first.Common[:first.Used]
	t.Cleanup(func() {
		w.delete(t, append(slices.Clone(used), home)...)
		w.nothingLeft(t)
	})
	w.apply(t, append([]txtar.File{home}, used...)...)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			own := slices.Concat(c.Common[c.Used:], c.Variants[0].Files)
			w.apply(t, own...)
			t.Cleanup(func() {
				w.delete(t, slices.DeleteFunc(own, func(f txtar.File) bool { return f.Name == namespaceFile })...)
				w.apply(t, home)
			})
			w.runLines(t, c.Home, c.Variants[0].Lines, true)
		})
	}
}

// runCase applies what is common to all variants once, and each variant on top.
func (w *world) runCase(t *testing.T, c *Case) {
	home := c.Namespace()
	first := slices.Concat([]txtar.File{home}, c.Common, c.Variants[0].Files)
	t.Cleanup(func() {
		w.delete(t, append(first[1:], home)...) // the namespace takes along what is not there any more
		w.nothingLeft(t)
	})
	w.apply(t, first...)
	for i, v := range c.Variants {
		run := func(t *testing.T) {
			if i > 0 {
				w.apply(t, v.Files...)
				t.Cleanup(func() { w.delete(t, v.Files...) })
			}
			w.runLines(t, c.Home, v.Lines, true)
		}
		if v.Plane == "" {
			run(t)
			continue
		}
		t.Run(v.Plane, run)
		if i == 0 && len(c.Variants) > 1 {
			w.delete(t, v.Files...)
		}
	}
}

// runLines sends the requests in order, those of one source after the other in one
// go, and judges what comes. asPlanned is whether the nodes are as their plans say: then
// it must have been foreseen, too.
func (w *world) runLines(t *testing.T, namespace string, lines []Line, asPlanned bool) {
	t.Helper()
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && lines[n].Source == lines[0].Source && !lines[n-1].slow() && !lines[n].slow() {
			n++
		}
		w.runBatch(t, namespace, lines[:n], asPlanned)
		lines = lines[n:]
	}
}

// slow lines are judged more than once, or by what is to be seen only later.
func (l *Line) slow() bool { return l.Eventually || l.decider() != nil }

// decider is the line's condition on the object that decided.
func (l *Line) decider() *Field {
	for _, f := range l.Want.Fields {
		if f.ofFlows() {
			return &f
		}
	}
	return nil
}

func (w *world) runBatch(t *testing.T, namespace string, lines []Line, asPlanned bool) {
	t.Helper()
	begin := time.Now()
	for {
		results, err := w.send(namespace, lines)
		if err != nil {
			t.Fatal(err)
		}
		failed := false
		for i, l := range lines {
			err := l.Want.Judge(results[i], w.self(namespace, l.Source))
			if err == nil && l.decider() != nil {
				err = w.decided(namespace, &l, begin)
			}
			if err == nil && asPlanned && !l.asksNothing() {
				err = w.foreseen(namespace, &l, results[i])
			}
			if err == nil {
				continue
			}
			if l.Eventually && time.Since(begin) < patience {
				failed = true
				break
			}
			t.Errorf("line %d: %s:\n%v", l.Number, l.Text, err)
		}
		if !failed {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// foreseen asks the agent of the source's node what becomes of the line: what came must
// be among it.
func (w *world) foreseen(namespace string, l *Line, results []load.Result) error {
	from, node := "node/"+l.Source, l.Source
	switch {
	case l.Source == "outside":
		from, node = l.From, w.nodes()[0]
		if from == "" {
			host, _, err := net.SplitHostPort(results[0].Local)
			if err != nil {
				return nil // not connected: who would have asked is not known
			}
			from = host
		}
	case !slices.Contains(w.nodes(), l.Source):
		p, err := w.pod(namespace, l.Source)
		if err != nil {
			return err
		}
		from, node = p.Namespace+"/"+p.Name, p.Node
	}
	q, err := l.query(from, func(name, form string) (string, error) { return w.address(namespace, name, form) })
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddrPort(results[0].Remote); err == nil {
		q.V6 = a.Addr().Unmap().Is6()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answers := map[netip.Addr]*trace.Answer{} // by the address that is dialled, if it is said
	ask := func(to netip.Addr) (*trace.Answer, error) {
		if answers[to] == nil {
			q.To = to
			if answers[to], err = w.agents[node].Trace(ctx, q); err != nil {
				return nil, fmt.Errorf("ask what becomes of it: %w", err)
			}
		}
		return answers[to], nil
	}
	for _, r := range results {
		a, err := ask(netip.Addr{})
		if err == nil && w.choice(a, r).IsValid() {
			a, err = ask(w.choice(a, r))
		}
		if err == nil {
			err = foreseen(a, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// choice is the address that a client has dialled of several that a name has: another than
// the answer's, which is no service's.
func (w *world) choice(a *trace.Answer, r load.Result) netip.Addr {
	dialled, err := netip.ParseAddrPort(r.Remote)
	to := a.Destination.Addr()
	if err != nil || !to.IsValid() || to == dialled.Addr().Unmap() {
		return netip.Addr{}
	}
	for _, s := range w.status.Services {
		if slices.Contains(s.Addresses, to) {
			return netip.Addr{}
		}
	}
	return dialled.Addr().Unmap()
}

// self are the addresses of a source.
func (w *world) self(namespace, source string) []string {
	var out []string
	for _, a := range w.addresses(namespace, source) {
		out = append(out, a.String())
	}
	return out
}

// send sends the requests of lines that have one source; results are by line.
func (w *world) send(namespace string, lines []Line) ([][]load.Result, error) {
	var requests []load.Request
	limit := 30 * time.Second
	for _, l := range lines {
		r, err := l.request(func(name, form string) (string, error) { return w.address(namespace, name, form) })
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", l.Number, l.Text, err)
		}
		requests = append(requests, r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	results, err := w.request(ctx, w.place(namespace, lines[0].Source), requests)
	if err != nil {
		return nil, err
	}
	out := make([][]load.Result, len(lines))
	for _, r := range results {
		out[r.Request] = append(out[r.Request], r)
	}
	for i, l := range lines {
		if len(out[i]) != l.Repeat {
			return nil, fmt.Errorf("line %d: %s: %d results of %d", l.Number, l.Text, len(out[i]), l.Repeat)
		}
	}
	return out, nil
}

// place is what the lab calls a source.
func (w *world) place(namespace, source string) string {
	switch {
	case source == "outside" || strings.Contains(source, "/"):
		return source
	case slices.Contains(w.nodes(), source):
		return "node/" + source
	}
	return namespace + "/" + source
}

// request runs the client of the lab in a place.
func (w *world) request(ctx context.Context, place string, requests []load.Request) ([]load.Result, error) {
	in, err := json.Marshal(requests)
	if err != nil {
		return nil, err
	}
	var out, problems bytes.Buffer
	code, err := lab.Exec(ctx, labName, place, []string{"request"}, lab.Stdio{In: bytes.NewReader(in), Out: &out, Err: &problems})
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("client in %s ended with %d: %s", place, code, problems.String())
	}
	var results []load.Result
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		return nil, fmt.Errorf("read results from %s: %w", place, err)
	}
	return results, nil
}

// decided waits for a flow that says what refused, or led, the line's request.
func (w *world) decided(namespace string, l *Line, since time.Time) error {
	want := l.decider()
	verdicts := []string{"denied", "dropped"}
	if want.Name == "led" {
		verdicts = []string{"forwarded"}
	}
	self := w.addresses(namespace, l.Source)
	var seen []string
	for time.Since(since) < patience+2*time.Second {
		seen = nil
		for _, f := range w.flows() {
			if f.Time.Before(since) || !slices.Contains(verdicts, f.Verdict) || !slices.ContainsFunc(self, func(a netip.Addr) bool { return a == f.Source.Addr.Addr() }) {
				continue
			}
			by := strings.Join(f.DecidedBy, ", ")
			if want.holds(by, nil) {
				return nil
			}
			seen = append(seen, fmt.Sprintf("%s %s by %q", f.Verdict, f.Reason, by))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("no flow says %s%s%s; they say: %s", want.Name, want.Op, want.Value, strings.Join(seen, "; "))
}

// flows are the recent ones of all nodes.
func (w *world) flows() []hubble.Flow {
	var out []hubble.Flow
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, c := range w.agents {
		// An agent that does not answer has no flows: the caller tries again.
		_ = c.Flows(ctx, agent.FlowQuery{Last: 500}, func(f hubble.Flow) error { out = append(out, f); return nil })
	}
	return out
}

// left is what a node has in Envoy, but for what retires, and in those maps of its
// kernel that it writes.
type left struct{ Envoy, Kernel map[string]int }

func (w *world) left() (map[string]left, error) {
	out := map[string]left{}
	for _, node := range w.nodes() {
		s, err := w.agents[node].Status(context.Background())
		if err != nil {
			return nil, err
		}
		if len(s.Rejected) > 0 || s.KernelError != "" {
			return nil, fmt.Errorf("%s: rejected: %+v; kernel: %s", node, s.Rejected, s.KernelError)
		}
		l := left{map[string]int{}, map[string]int{}}
		for kind, n := range s.Feed.Resources {
			if n -= s.Retiring[kind]; n > 0 {
				l.Envoy[kind] = n
			}
		}
		for _, m := range s.Kernel.Maps {
			if _, ours := s.Writes[m.Name]; ours {
				l.Kernel[m.Name] = m.Entries
			}
		}
		out[node] = l
	}
	return out, nil
}

// nothingLeft looks for traces of what was taken away.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	d := ""
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		got, err := w.left()
		if err != nil {
			t.Error(err)
			return
		}
		if d = cmp.Diff(w.empty, got); d == "" {
			return
		}
	}
	t.Errorf("something is left (+):\n%s", d)
}

// nothingRetires waits until Envoy has nothing that was taken away.
func (w *world) nothingRetires(t *testing.T) {
	t.Helper()
	w.retired(t)
	w.nothingLeft(t)
}

// retired waits until the agents have taken from Envoy what nothing needs any more, also
// of the tests before: who compares what is written waits for it first.
func (w *world) retired(t *testing.T) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		retiring := map[string]int{}
		for _, node := range w.nodes() {
			s, err := w.agents[node].Status(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			maps.Copy(retiring, s.Retiring)
		}
		if len(retiring) == 0 {
			return
		}
		if time.Since(begin) > 2*patience {
			t.Errorf("Envoy keeps %v", retiring)
			return
		}
	}
}
