// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// figure is one line of the report.
type figure struct {
	name string
	unit string  // "" = a ratio
	goal float64 // ours must not be above it; 0 = no goal
	// zero: the goal is 0.
	zero bool
}

// The figures, in the order of the report.
var (
	rssLoaded       = line("Envoy's memory after load (RSS)", "MB")
	allocatedLoaded = line("of it allocated", "MB")
	rssUsed         = goal("memory, 50 in use (RSS)", "MB", 100)
	anonymousUsed   = line("of it not the binary's pages", "MB")
	allocatedUsed   = line("of it allocated", "MB")
	loadTime        = line("load: until all is there", "s")
	loadCPU         = line("load: Envoy's CPU", "s")

	firstMedian = goal("first request to a service, median", "ms", 10)
	firstP95    = line("first request to a service, p95", "ms")
	againMedian = line("second request, on a new connection, median", "ms")

	routeBody       = line("route changed: the resource", "B")
	routeRead       = goal("route changed: all that Envoy reads", "B", 400)
	namedBody       = line("route by authority changed: the resource", "B")
	namedRead       = line("route by authority changed: all that Envoy reads", "B")
	routeMedian     = goal("route changed: from feed to served, median", "ms", 5)
	routeP95        = line("route changed: from feed to served, p95", "ms")
	addBody         = line("service added: resources", "B")
	addRead         = line("service added: all that Envoy reads", "B")
	addMedian       = line("service added: from feed to served, median", "ms")
	policyBody      = line("policy changed: resources", "B")
	policyRead      = line("policy changed: all that Envoy reads", "B")
	policyMedian    = line("policy changed: from feed to enforced, median", "ms")
	policyListeners = none("policy changed: listener updates", "")

	reconnectBytes = line("feed came back: resources sent to Envoy", "B")
	reconnectTime  = line("feed came back: until a change is served", "ms")
	restartTime    = line("Envoy killed: until a used service is served", "ms")

	cpuBare    = line("CPU per request of a bare Envoy, one tiny table", "us")
	cpuPlain   = line("CPU per request ÷ bare", "")
	cpuGuarded = line("CPU per request with two policies ÷ bare", "")

	cpuOwn   = line("CPU per request by authority, own name ÷ by destination", "")
	p50Own   = line("p50 by authority, own name ÷ by destination", "")
	cpuOther = line("CPU per request for another name ÷ own name", "")
	p50Other = line("p50 for another name ÷ own name", "")

	replaceRequests = line("Envoy replaced under load: requests", "")
	replaceFailed   = none("Envoy replaced under load: failed", "")
	replaceTime     = line("Envoy replaced under load: took", "s")
	quietP99        = line("p99, nothing happens", "ms")
	replaceP99      = line("p99 over a replacement", "ms")
	quietMax        = line("max, nothing happens", "ms")
	replaceMax      = line("max over a replacement", "ms")

	crashFailed  = line("Envoy killed under load: requests failed", "")
	crashPause   = line("Envoy killed under load: a new client waits", "ms")
	standbyRSS   = line("with standby: memory of both Envoys (RSS)", "MB")
	standbyFails = line("with standby, killed under load: requests failed", "")
	standbyPause = line("with standby, killed under load: a new client waits", "ms")
)

var lines []*figure

func line(name, unit string) *figure {
	f := &figure{name: name, unit: unit}
	lines = append(lines, f)
	return f
}

func goal(name, unit string, max float64) *figure {
	f := line(name, unit)
	f.goal = max
	return f
}

func none(name, unit string) *figure {
	f := line(name, unit)
	f.zero = true
	return f
}

// figures are what was measured of one subject.
type figures map[*figure]float64

// measured are the subjects of a number of services.
type measured struct {
	services int
	ours     figures
	others   []other
}

type other struct {
	name   string
	layout func(*testing.B) layout
	figures
}

// write writes the table, as Markdown; nothing if nothing was measured.
func (m *measured) write(w io.Writer) {
	var rows []string
	for _, f := range lines {
		if row, measured := m.row(f); measured {
			rows = append(rows, row+"\n")
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n**%s services**\n\n| | ours | goal |", number(float64(m.services)))
	for _, o := range m.others {
		fmt.Fprintf(w, " %s | ÷ ours |", o.name)
	}
	fmt.Fprintf(w, "\n|---|---|---|%s\n%s\n", strings.Repeat("---|---|", len(m.others)), strings.Join(rows, ""))
}

func (m *measured) row(f *figure) (row string, measured bool) {
	name := f.name
	if f.unit != "" {
		name += ", " + f.unit
	}
	row = "| " + name + " |"
	v, measured := m.ours[f]
	if measured {
		row += " " + number(v)
	}
	row += " | " + f.verdict(v) + " |"
	for _, o := range m.others {
		x, ok := o.figures[f]
		switch {
		case !ok:
			row += " | |"
		case v == 0:
			row += " " + number(x) + " | |"
		default:
			row += " " + number(x) + " | " + number(x/v) + " |"
		}
		measured = measured || ok
	}
	return row, measured
}

func (f *figure) verdict(v float64) string {
	switch met := v <= f.goal; {
	case f.goal == 0 && !f.zero:
		return ""
	case f.zero && met:
		return "0"
	case f.zero:
		return "0, **missed**"
	case met:
		return "≤ " + number(f.goal)
	}
	return "≤ " + number(f.goal) + ", **missed**"
}

// number is a figure with the digits that mean something.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 1000 || v == float64(int(v)):
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func thousands(s string) string {
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
