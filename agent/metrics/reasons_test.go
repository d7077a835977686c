// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
)

// Each reason of the kernel (those of bpf/fl_types.h: a test of datapath compares them) has
// a text, is counted by a metric, and stands in the reference.
func TestReasonsOfTheKernel(t *testing.T) {
	counters := map[string]uint64{}
	for i, name := range datapath.Reasons() {
		counters[name] = uint64(1000 + i)
		if r := hubble.Reasons[i]; r.Name != name || r.By != hubble.Kernel || r.Refuses != datapath.Drops(name) {
			t.Errorf("reason %d, %s (drops: %t), is told as %+v", i, name, datapath.Drops(name), r)
		}
	}
	lost := counters["event-lost"]
	delete(counters, "event-lost") // status has it apart
	told := text(t, &agent.Status{Kernel: datapath.Status{Counters: counters, Lost: lost}, Flows: agent.FlowCounts{LostKernel: lost}})
	for i, name := range datapath.Reasons() {
		if want := fmt.Sprintf("%s %d\n", countedAs(name), 1000+i); !strings.Contains(told, want) {
			t.Errorf("no metric says %s", want)
		}
	}
}

// countedAs is the metric that counts a reason of the kernel.
func countedAs(reason string) string {
	switch {
	case reason == "event-lost":
		return `fairlead_flows_lost_total{where="kernel"}`
	case reason == "observed":
		return "fairlead_datapath_observed_total"
	case datapath.Drops(reason):
		return fmt.Sprintf("fairlead_datapath_drops_total{reason=%q}", reason)
	}
	return fmt.Sprintf("fairlead_datapath_connections_total{reason=%q}", reason)
}

const flowsHead = `# Flows

` + "`fairlead observe`" + ` prints what became of connections and requests: what the kernel decides of each that begins, and of each
packet that it refuses, and what Envoy answers. ` + "`-f`" + ` goes on as they come, ` + "`-o json`" + ` has all that is known, one object a line.

    fairlead observe -f --namespace shop
    fairlead observe --verdict dropped --last 50
    fairlead observe -f --service shop/web --protocol http --status 5xx,429

| Filter | Flows |
|---|---|
| ` + "`--namespace`" + ` | from or to pods of it, or to its services |
| ` + "`--pod`" + ` | from or to pods whose ns/name has this in it |
| ` + "`--service`" + ` | to services whose ns/name:port has this in it |
| ` + "`--protocol`" + ` | tcp, udp, icmp, icmpv6, or http: requests |
| ` + "`--verdict`" + ` | see below |
| ` + "`--status`" + ` | requests that were answered so: 404, 5xx, 400-417, or several with commas |

All that are given must fit.

| Verdict | |
|---|---|
| forwarded | goes where it was sent; of Envoy: was answered by whom it was for, or by a route |
| redirected | was handed to Envoy, which tells of its requests |
| dropped | did not get there |
| denied | Envoy answered that it may not |
| audited | would have been dropped or denied, and was not: its namespace is observed |
| lost | flows are not shown, and how many: where they were lost is the reason. Filters do not hide it |

What was refused says why, and who wants it so: the rule, by its id in ` + "`-o json`" + `, and the object and field that it stands
in, with file and line if it is from a file. Where no rule allows something, those are named that would have to. What is
refused for another reason says what to do.
`

// The reference has every reason.
func TestReferenceOfFlows(t *testing.T) {
	var b strings.Builder
	b.WriteString(flowsHead)
	kernel := datapath.Reasons()
	for _, part := range []struct {
		title string
		is    func(r hubble.Reason) bool
	}{
		{"Refused by what users' objects say", func(r hubble.Reason) bool { return r.Refuses && r.Policy }},
		{"Refused for other reasons", func(r hubble.Reason) bool { return r.Refuses && !r.Policy }},
		{"Let through", func(r hubble.Reason) bool { return !r.Refuses }},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| Reason | Of | Means | What to do | Counted as |\n|---|---|---|---|---|\n", part.title)
		for _, r := range hubble.Reasons {
			if !part.is(r) {
				continue
			}
			counted := ""
			if r.By == hubble.Kernel && slices.Contains(kernel, r.Name) {
				counted = "`" + countedAs(r.Name) + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Name, r.By, r.Text, r.Advice, counted)
		}
	}
	b.WriteString(`
The kernel counts each packet and connection, and tells of the first of each that goes through. What a client may not
reach because it is held to known services, it counts as ` + "`no-backend`" + `, and flows say ` + "`unknown-host`" + `. Of requests that fail, flows
have Envoy's own words for why.

## What is lost

The kernel's ring has room for some 9,000 flows that the agent has not read, and the agent keeps the last 8,192. Who is slower
than they come loses some, and nothing else waits for it: it is told in the stream, in ` + "`fairlead status`" + `, and by
` + "`fairlead_flows_lost_total`" + `, by where: ` + "`kernel`, `access-log` or `observers`" + `.

This page is written by ` + "`go test ./agent/metrics -update`" + `.
`)
	same(t, "../../docs/reference/flows.md", b.String())
}
