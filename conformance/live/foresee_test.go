// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// outside are the addresses that the lab has outside of the cluster.
var outside = []netip.Addr{netip.MustParseAddr("10.240.0.250"), netip.MustParseAddr("fd40::250")}

// TestExplainForeseesEveryCase asks the plan about every request of every case, whose
// answers the live cases prove, and expects them to be foreseen: who answers and in
// which shares, with what path, authority and headers, and who is refused.
func TestExplainForeseesEveryCase(t *testing.T) {
	var files []string
	for _, table := range tables {
		files = append(files, caseFiles(t, table)...)
	}
	asked, ran, all := 0, 0, 0
	for _, file := range files {
		c, err := ReadCase(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range c.Variants {
			all++
			t.Run(strings.Trim(c.Name+"/"+v.Plane, "/"), func(t *testing.T) {
				ran++
				asked += foresee(t, c, v)
			})
		}
	}
	if ran == all && asked < 400 { // -run may ask for some of them
		t.Errorf("%d requests were asked about", asked)
	}
}

// planned is a case's cluster as each of its nodes plans it.
type planned struct {
	nodes     map[string]*pipeline.Pipeline
	namespace string
}

var labNodes = []string{"node-1", "node-2"}

func planCase(t *testing.T, c *Case, v Variant) *planned {
	t.Helper()
	var inputs []objects.Input
	for _, f := range slices.Concat([]txtar.File{c.Namespace()}, c.Common, v.Files) {
		inputs = append(inputs, objects.Input{Name: f.Name, Data: f.Data})
	}
	p := &planned{map[string]*pipeline.Pipeline{}, c.Home}
	for _, n := range labNodes {
		pipe, err := pipeline.New(pipeline.Options{Node: n})
		if err != nil {
			t.Fatal(err)
		}
		pipe.Load(cluster.Offline(inputs, labNodes)...)
		p.nodes[n] = pipe
	}
	return p
}

func (p *planned) any() *pipeline.Pipeline { return p.nodes[labNodes[0]] }

// pod is a pod by its own name or its Deployment's, with its namespace or without.
func (p *planned) pod(name string) *model.Workload {
	if !strings.Contains(name, "/") {
		name = p.namespace + "/" + name
	}
	for _, row := range p.any().Rows(translators.Workloads) {
		if row.Key == name {
			return row.Value.(*model.Workload)
		}
	}
	for _, row := range p.any().Rows(translators.Workloads) {
		if strings.HasPrefix(row.Key, name+"-") {
			return row.Value.(*model.Workload)
		}
	}
	return nil
}

func (p *planned) addresses(name string) []netip.Addr {
	if name == "outside" {
		return outside
	}
	if n, ok := p.any().Get(translators.Nodes, name).(*model.Node); ok {
		return n.Addresses
	}
	if s, ok := strings.CutPrefix(name, "service/"); ok {
		if row, ok := p.any().Get(translators.Services, p.namespace+"/"+s).(*model.Service); ok {
			return row.VIPs
		}
		return nil
	}
	if w := p.pod(name); w != nil {
		return w.Addresses
	}
	return nil
}

func (p *planned) address(name, form string) (string, error) {
	for _, a := range p.addresses(name) {
		switch {
		case a.Is4() && (form == "" || form == "4"):
			return a.String(), nil
		case a.Is4() && form == "mapped":
			return "[::ffff:" + a.String() + "]", nil
		case a.Is6() && form == "6":
			return "[" + a.String() + "]", nil
		}
	}
	return "", fmt.Errorf("no address of %s", name)
}

func (p *planned) facts(e trace.Endpoint) echo.Facts {
	if slices.Contains(outside, e.Addr.Addr()) {
		return echo.Facts{Pod: "outside"}
	}
	w, _ := p.any().Get(translators.Workloads, e.Pod).(*model.Workload)
	for _, row := range p.any().Rows(translators.Workloads) { // in the node's network
		if other := row.Value.(*model.Workload); w == nil && other.HostNetwork && slices.Contains(other.Addresses, e.Addr.Addr()) &&
			slices.ContainsFunc(other.Ports, func(p model.WorkloadPort) bool { return p.Port == e.Addr.Port() }) {
			w = other
		}
	}
	if w == nil {
		return echo.Facts{}
	}
	f := echo.Facts{Pod: w.Name, Labels: w.Labels, Node: w.Node}
	f.Deployment = w.Name
	if i := strings.LastIndexByte(w.Name, '-'); i > 0 {
		f.Deployment = w.Name[:i]
		if j := strings.LastIndexByte(f.Deployment, '-'); j > 0 && len(f.Deployment)-j > 6 {
			f.Deployment = f.Deployment[:j]
		}
	}
	return f
}

// ask traces a line.
func (p *planned) ask(l *Line) (*trace.Answer, error) {
	from, node := "", labNodes[0]
	switch {
	case l.Source == "outside":
		from = p.addresses("outside")[0].String()
		if l.Family == "6" || strings.Contains(l.URL, "|6}") {
			from = p.addresses("outside")[1].String()
		}
	case p.nodes[l.Source] != nil:
		from, node = "node/"+l.Source, l.Source
	default:
		w := p.pod(l.Source)
		if w == nil {
			return nil, fmt.Errorf("no pod %s", l.Source)
		}
		from, node = w.Key(), w.Node
	}
	q, err := l.query(from, p.address)
	if err != nil {
		return nil, err
	}
	q.V6 = q.V6 || strings.Contains(q.URL, "[")
	return trace.Follow(p.nodes[node], q)
}

// kernelSays are ends of connections that the plan does not tell apart.
var kernelSays = regexp.MustCompile(`^(refused|reset|timeout|closed)(\|(refused|reset|timeout|closed|failed))*$`)

// foreseeable are the conditions that the plan has an answer to.
func foreseeable(w Want) Want {
	out := Want{Status: w.Status, Shares: w.Shares}
	if kernelSays.MatchString(w.Status) {
		out.Status = "failed"
	}
	for _, f := range w.Fields {
		if f.Name == "path" || f.Name == "host" || strings.HasPrefix(f.Name, "header.") {
			out.Fields = append(out.Fields, f)
		}
	}
	return out
}

// ejects reports whether endpoints that fail are out of use for a while.
func (p *planned) ejects(a *trace.Answer) bool {
	return slices.ContainsFunc(a.Outcomes, func(o trace.Outcome) bool {
		c, _ := p.any().Get(plan.Clusters, o.Cluster).(*plan.Cluster)
		return c != nil && c.Traffic != nil && c.Traffic.Outlier != nil
	})
}

// judge compares what is wanted with what n requests would come to. Where endpoints may be
// out of use, one of those that are left may answer all.
func (p *planned) judge(want Want, a *trace.Answer, n int, failing bool) error {
	err := want.Judge(results(a, n, p.facts), nil)
	if err == nil || !failing {
		return err
	}
	for i, o := range a.Outcomes {
		for _, e := range o.Endpoints {
			left := *a
			left.Outcomes = slices.Clone(a.Outcomes)
			left.Outcomes[i].Endpoints = []trace.Endpoint{e}
			if want.Judge(results(&left, n, p.facts), nil) == nil {
				return nil
			}
		}
	}
	return err
}

func foresee(t *testing.T, c *Case, v Variant) (asked int) {
	p := planCase(t, c, v)
	failing := false // endpoints may be out of use, because they were asked to fail
	for i := range v.Lines {
		l := &v.Lines[i]
		if l.asksNothing() {
			continue
		}
		a, err := p.ask(l)
		if err != nil {
			t.Errorf("line %d: %s: %v", l.Number, l.Text, err)
			continue
		}
		asked++
		want := foreseeable(l.Want)
		if misbehaves.MatchString(l.URL) && a.Outcomes[0].Verdict == trace.Reached {
			want.Status = "200" // what the application is asked to do is nothing that the plan knows
			failing = failing || p.ejects(a)
		}
		if err := p.judge(want, a, max(400, l.Repeat), failing); err != nil {
			t.Errorf("line %d: %s:\n%v\n%+v\n%+v", l.Number, l.Text, err, a.Steps, a.Outcomes)
		}
	}
	return asked
}
