// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"fairlead.io/fairlead/xds"
)

// hint is what a text says about where the fault is.
type hint struct {
	text   string   // without the resource's own name, which is in everything
	tokens []string // what it puts in quotes or at its end, most telling last
	place  int      // of a route; -1: not said
}

var (
	// Of protobuf's validation: "... RouteConfigurationValidationError.VirtualHosts[0]:
	// ... | caused by VirtualHostValidationError.Routes[3]: ...".
	routePlace = regexp.MustCompile(`\bRoutes\[(\d+)\]`)
	quoted     = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|'[^']*'|`[^`]*`")
	// RE2 ends with the part that it stumbled over: "missing ): (abc".
	re2Ends = regexp.MustCompile(`(?:missing \)|missing \]|missing argument to repetition operator|no argument for repetition operator|bad repetition operator|invalid [a-z ]+|unexpected \)|trailing \\|repetition operator): (\S+)`)
)

func readHint(typ, name, detail string) hint {
	h := hint{place: -1}
	detail = strings.TrimPrefix(detail, xds.Short(typ)+" "+name+": ") // said on the way to the agent
	h.text = replaceName(detail, name)
	if m := routePlace.FindStringSubmatch(h.text); m != nil {
		h.place, _ = strconv.Atoi(m[1]) // digits; too many are the largest number, which is no place
	}
	if m := re2Ends.FindStringSubmatch(h.text); m != nil {
		h.tokens = append(h.tokens, m[1])
	}
	for _, q := range quoted.FindAllString(h.text, -1) {
		plain := q[1 : len(q)-1]
		if s, err := strconv.Unquote(q); err == nil && q[0] == '"' {
			plain = s
		}
		if plain != "" {
			h.tokens = append(h.tokens, plain)
		}
	}
	return h
}

// replaceName takes a name out of a text where it is not a part of a longer word.
func replaceName(text, name string) string {
	if name == "" {
		return text
	}
	var out strings.Builder
	for {
		i := strings.Index(text, name)
		if i < 0 {
			return out.String() + text
		}
		end := i + len(name)
		out.WriteString(text[:i])
		if !bounded(text, i, end) {
			out.WriteString(name)
		}
		text = text[end:]
	}
}

// How sure a hint is; the surest decide.
const (
	unsure   = iota
	partly   // a part of a value is quoted: the longer, the surer
	wholly   // a whole value is there: the longer, the surer
	numbered // the route's place or the unit's id
)

type score struct{ class, length int }

func (a score) less(b score) bool {
	return a.class < b.class || a.class == b.class && a.length < b.length
}

// choose gives the units that the hint points at most surely, with the values that it
// does so by; none if it points at nothing.
func (h hint) choose(all []unit) []unit {
	best := score{}
	var out []unit
	for _, u := range all {
		s, vs := h.judge(u)
		if s.class == unsure || s.less(best) {
			continue
		}
		if best.less(s) {
			best, out = s, nil
		}
		out = append(out, unit{u.id, u.place, u.parts, vs})
	}
	return out
}

func (h hint) judge(u unit) (score, []string) {
	best := score{}
	var by []string
	for _, v := range u.values {
		s := h.value(v)
		if s.class == unsure || s.less(best) {
			continue
		}
		if best.less(s) {
			best, by = s, nil
		}
		by = append(by, v)
	}
	if strings.Contains(h.text, u.id) && u.id != "" || u.place <= h.place && h.place < u.place+u.parts {
		// A rule is more telling than the route that has it.
		best = score{numbered, -u.place}
		if u.place < 0 {
			best.length = 1
		} else {
			best.length = 0
		}
	}
	return best, by
}

// value is how surely a text speaks of a value.
func (h hint) value(v string) score {
	if slices.Contains(h.tokens, v) {
		return score{wholly, len(v)}
	}
	// Words of a language are in many texts.
	if !isWord(v) {
		for _, form := range []string{v, escaped(v)} {
			if containsBounded(h.text, form) {
				return score{wholly, len(v)}
			}
		}
	}
	best := score{}
	for _, t := range h.tokens {
		if s := (score{partly, len(t)}); !isWord(t) && strings.Contains(v, t) && best.less(s) {
			best = s
		}
	}
	return best
}

// escaped is a value as it stands between quotes of Go.
func escaped(v string) string {
	q := strconv.Quote(v)
	return q[1 : len(q)-1]
}

func isWord(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" || len(s) < 3 && strings.Trim(s, "0123456789/") == ""
}

// containsBounded reports whether a text has the value and not just a longer word
// that it is a part of.
func containsBounded(text, v string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], v)
		if i < 0 || v == "" {
			return false
		}
		i += from
		if bounded(text, i, i+len(v)) {
			return true
		}
		from = i + 1
	}
}

func bounded(text string, i, end int) bool {
	word := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
	}
	return (i == 0 || !word(text[i-1]) || !word(text[i])) && (end == len(text) || !word(text[end]) || !word(text[end-1]))
}
