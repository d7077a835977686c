// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"

	"fairlead.io/fairlead/model"
)

// ruleText is a rule in words; its sources have the author's.
func ruleText(r model.AuthRule) string {
	var parts []string
	if len(r.From) > 0 {
		parts = append(parts, "it is from "+joinWords(r.From, " or ", peerText))
	}
	if len(r.To) > 0 {
		parts = append(parts, "it is for "+joinWords(r.To, " or ", operationText))
	}
	for _, c := range r.When {
		parts = append(parts, conditionText(c))
	}
	if len(parts) == 0 {
		return "it comes at all"
	}
	return strings.Join(parts, " and ")
}

// terms are the parts of a conjunction.
type terms []string

func (t *terms) add(not bool, what string, values []string) {
	if len(values) == 0 {
		return
	}
	word := " "
	if not {
		word = " not "
	}
	*t = append(*t, what+word+strings.Join(values, " or "))
}

// text is the whole; of nothing, anything.
func (t terms) text() string {
	if len(t) == 0 {
		return "anything"
	}
	return strings.Join(t, ", ")
}

func peerText(p model.Peer) string {
	var t terms
	t.add(false, "identity", texts(p.Identities, identityText))
	t.add(true, "identity", texts(p.NotIdentities, identityText))
	t.add(false, "address", texts(p.IPs, netip.Prefix.String))
	t.add(true, "address", texts(p.NotIPs, netip.Prefix.String))
	return t.text()
}

func identityText(m model.StringMatch) string {
	if m.Kind == model.Present {
		return "of a member of the mesh"
	}
	return stringText(m)
}

func operationText(o model.Operation) string {
	var t terms
	if o.Protocol != "" {
		t.add(false, "protocol", []string{string(o.Protocol)})
	}
	t.add(false, "port", texts(o.Ports, portText))
	t.add(true, "port", texts(o.NotPorts, portText))
	t.add(false, "host", texts(o.Hosts, stringText))
	t.add(true, "host", texts(o.NotHosts, stringText))
	t.add(false, "method", texts(o.Methods, stringText))
	t.add(true, "method", texts(o.NotMethods, stringText))
	t.add(false, "path", texts(o.Paths, stringText))
	t.add(true, "path", texts(o.NotPaths, stringText))
	for _, h := range o.Headers {
		t.add(false, "header", []string{namedText(h)})
	}
	return t.text()
}

func conditionText(c model.Condition) string {
	what := string(c.Kind)
	if c.Name != "" {
		what += " " + c.Name
	}
	var t terms
	text := stringText
	if c.Kind == model.OnIdentity {
		text = identityText
	}
	t.add(false, what, texts(c.Values, text))
	t.add(true, what, texts(c.NotValues, text))
	t.add(false, what, texts(c.Prefixes, netip.Prefix.String))
	t.add(true, what, texts(c.NotPrefixes, netip.Prefix.String))
	t.add(false, what, texts(c.Ports, portText))
	t.add(true, what, texts(c.NotPorts, portText))
	if len(t) == 0 {
		return what + " is anything"
	}
	return t.text()
}

func portText(n uint16) string { return fmt.Sprint(n) }

func texts[T any](all []T, text func(T) string) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = text(v)
	}
	return out
}

func joinWords[T any](all []T, word string, text func(T) string) string {
	return strings.Join(texts(all, text), word)
}
