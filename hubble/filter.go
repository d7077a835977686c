// SPDX-License-Identifier: Apache-2.0

package hubble

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Filter chooses flows; the zero value takes all. All that is set must fit.
type Filter struct {
	Namespace string // of the source, the destination or the service
	Pod       string // a part of the source's or the destination's ns/name
	Service   string // a part of the ns/name:port that the client dialled
	Protocol  string // TCP, UDP, ICMP, ICMPv6; HTTP: requests; in any case
	Verdict   string // one of Verdicts
	Status    Status // of the answer; takes requests alone
}

// Verdicts are what may become of a flow. Audited would be dropped or denied if it was not
// observed; Lost stands for flows that are not shown.
var Verdicts = []string{"forwarded", "redirected", "dropped", "denied", "audited"}

// Protocols are what Filter.Protocol may be.
var Protocols = []string{"TCP", "UDP", "ICMP", "ICMPv6", "HTTP"}

// Wants reports whether the flow is one of those that are asked for.
func (f Filter) Wants(flow Flow) bool {
	switch {
	case flow.Verdict == Lost:
		return true
	case f.Verdict != "" && flow.Verdict != f.Verdict,
		f.Protocol != "" && !f.speaks(flow),
		f.Namespace != "" && !f.within(flow.Source.Pod) && !f.within(flow.Destination.Pod) && !f.within(flow.Service),
		f.Service != "" && !strings.Contains(flow.Service, f.Service),
		len(f.Status) > 0 && (flow.HTTP == nil || !f.Status.has(flow.HTTP.Status)):
		return false
	}
	return f.Pod == "" || strings.Contains(flow.Source.Pod, f.Pod) || strings.Contains(flow.Destination.Pod, f.Pod)
}

func (f Filter) speaks(flow Flow) bool {
	if strings.EqualFold(f.Protocol, "HTTP") {
		return flow.HTTP != nil
	}
	return strings.EqualFold(f.Protocol, flow.Protocol)
}

// within reports whether something of a namespace (ns/name) is of the one that is asked for.
func (f Filter) within(name string) bool { return strings.HasPrefix(name, f.Namespace+"/") }

// Values are the filter as parameters of a URL.
func (f Filter) Values() url.Values {
	v := url.Values{}
	for name, of := range f.texts() {
		if *of != "" {
			v.Set(name, *of)
		}
	}
	if len(f.Status) > 0 {
		v.Set("status", f.Status.String())
	}
	return v
}

// FilterOf reads what Values wrote, or people.
func FilterOf(v url.Values) (Filter, error) {
	var f Filter
	for name, of := range f.texts() {
		*of = v.Get(name)
	}
	if f.Verdict != "" && !slices.Contains(Verdicts, f.Verdict) {
		return f, fmt.Errorf("verdict %s: want one of %s", f.Verdict, strings.Join(Verdicts, ", "))
	}
	if f.Protocol != "" && !slices.ContainsFunc(Protocols, func(p string) bool { return strings.EqualFold(p, f.Protocol) }) {
		return f, fmt.Errorf("protocol %s: want one of %s", f.Protocol, strings.Join(Protocols, ", "))
	}
	return f, f.Status.Set(v.Get("status"))
}

func (f *Filter) texts() map[string]*string {
	return map[string]*string{"namespace": &f.Namespace, "pod": &f.Pod, "service": &f.Service, "protocol": &f.Protocol, "verdict": &f.Verdict}
}

// Status is a set of status codes: "404", "5xx", "400-417", or several with commas.
type Status []statusRange

type statusRange struct{ from, to uint32 }

// Set reads a set; "" is none.
func (s *Status) Set(text string) error {
	*s = nil
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		if len(part) == 3 && strings.EqualFold(part[1:], "xx") {
			from, to = part[:1]+"00", part[:1]+"99"
		}
		a, err := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err != nil || err2 != nil || a < 100 || b > 599 || a > b {
			*s = nil
			return fmt.Errorf("status %s: want codes (404), classes (5xx) or ranges (400-417), with commas", text)
		}
		*s = append(*s, statusRange{uint32(a), uint32(b)})
	}
	return nil
}

// String is what Set reads.
func (s Status) String() string {
	var parts []string
	for _, r := range s {
		switch {
		case r.from == r.to:
			parts = append(parts, fmt.Sprint(r.from))
		case r.from%100 == 0 && r.to == r.from+99:
			parts = append(parts, fmt.Sprintf("%dxx", r.from/100))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", r.from, r.to))
		}
	}
	return strings.Join(parts, ",")
}

// Type is for the help of a command's flag.
func (Status) Type() string { return "codes" }

func (s Status) has(code uint32) bool {
	return slices.ContainsFunc(s, func(r statusRange) bool { return r.from <= code && code <= r.to })
}
