// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// nothing stands for what is not there.
const nothing = "-"

// actionChanges lists how two routes differ in what they do.
func actionChanges(a, b *model.Route) []Change {
	var out []Change
	add := func(what, old, new string) {
		if old != new {
			out = append(out, Change{what, old, new})
		}
	}
	if x, y := endWord(a), endWord(b); x != y {
		add(endKind(a, b), x, y)
	}
	add("traffic policy", policiesWord(a.Backends), policiesWord(b.Backends))
	add("timeout", wait(a.Timeout), wait(b.Timeout))
	add("idle timeout", wait(a.IdleTimeout), wait(b.IdleTimeout))
	add("retries", retryWord(a.Retry), retryWord(b.Retry))
	add("request headers", editWord(a.RequestHeaders), editWord(b.RequestHeaders))
	add("response headers", editWord(a.ResponseHeaders), editWord(b.ResponseHeaders))
	add("rewrite", contentWord(a.Rewrite), contentWord(b.Rewrite))
	add("mirrors", mirrorsWord(a.Mirrors), mirrorsWord(b.Mirrors))
	add("fault", faultWord(a.Fault), faultWord(b.Fault))
	add("CORS", contentWord(a.CORS), contentWord(b.CORS))
	return out
}

// outcomeChanges lists how two routes differ that do the same, where what comes of it
// depends on their matches: what is put in place of a prefix.
func outcomeChanges(a, b *model.Route, q *plan.Request) []Change {
	if x, y := pathBehind(a, q.Path), pathBehind(b, q.Path); x != y {
		return []Change{{"path", x, y}}
	}
	return nil
}

// pathBehind is the path of a request behind a route, or where it is redirected to.
func pathBehind(r *model.Route, path string) string {
	switch {
	case r.Redirect != nil && r.Redirect.Prefix != nil:
		return trace.RewrittenPath(&model.Rewrite{Path: cmp.Or(*r.Redirect.Prefix, "/")}, r.Match.Path, path)
	case r.Rewrite != nil && r.Redirect == nil && r.Direct == nil:
		return trace.RewrittenPath(r.Rewrite, r.Match.Path, path)
	}
	return path
}

// endKind names what differs where requests end.
func endKind(a, b *model.Route) string {
	names := func(r *model.Route) []string {
		var out []string
		for _, s := range model.Shares(r.Backends) {
			out = append(out, backendName(s))
		}
		return out
	}
	if len(a.Backends) == 0 || len(b.Backends) == 0 || !slices.Equal(names(a), names(b)) {
		return "leads to"
	}
	return "weights"
}

// endWord is where requests end.
func endWord(r *model.Route) string {
	switch {
	case r == nil:
		return "404, no route"
	case r.Direct != nil:
		return fmt.Sprintf("answer %d %q", r.Direct.Status, r.Direct.Body)
	case r.Redirect != nil:
		return "redirect " + contentWord(r.Redirect)
	case r.Original:
		return "where it was sent"
	}
	return backendsWord(r.Backends)
}

// backendsWord writes backends with their shares.
func backendsWord(in []model.Backend) string {
	shares := sharesOf(in)
	if len(shares) == 0 {
		return "nowhere: 503"
	}
	total := uint64(0)
	for _, b := range shares {
		total += uint64(max(b.Weight, 1))
	}
	words := make([]string, len(shares))
	for i, b := range shares {
		words[i] = backendName(b)
		if len(shares) > 1 {
			words[i] += fmt.Sprintf(" %.4g %%", 100*float64(b.Weight)/float64(total))
		}
		for j, e := range []model.HeaderEdit{b.RequestHeaders, b.ResponseHeaders} {
			if !e.IsZero() {
				words[i] += fmt.Sprintf(" (%s headers %s)", []string{"request", "response"}[j], editWord(e))
			}
		}
	}
	return strings.Join(words, ", ")
}

// sharesOf are the backends that get anything; one alone does, whatever its weight.
func sharesOf(in []model.Backend) []model.Backend {
	if shares := model.Shares(in); len(shares) > 0 || len(in) == 0 {
		return shares
	}
	return in[:1]
}

// policiesWord writes the traffic policies of backends, once if it is the same of all.
func policiesWord(in []model.Backend) string {
	var words []string
	same := true
	for _, b := range sharesOf(in) {
		word := nothing
		if b.Policy != nil {
			word = contentWord(b.Policy)
		}
		words = append(words, word)
		same = same && word == words[0]
	}
	if len(words) == 0 {
		return nothing
	}
	if same {
		return words[0]
	}
	for i, b := range sharesOf(in) {
		words[i] = backendName(b) + ": " + words[i]
	}
	return strings.Join(words, "; ")
}

// policySources are where the traffic policies of backends are written, if they differ.
func policySources(old, new []model.Backend) (before, after []model.Source) {
	if policiesWord(old) == policiesWord(new) {
		return nil, nil
	}
	of := func(in []model.Backend) (out []model.Source) {
		for _, b := range sharesOf(in) {
			if b.Policy != nil {
				out = append(out, b.Policy.Src...)
			}
		}
		return out
	}
	return of(old), of(new)
}

func backendName(b model.Backend) string {
	s := model.FrontendKey(b.Namespace, b.Service, b.Port)
	var ls []string
	for _, k := range slices.Sorted(maps.Keys(b.Labels)) {
		ls = append(ls, k+"="+b.Labels[k])
	}
	if len(ls) > 0 {
		s += "{" + strings.Join(ls, ",") + "}"
	}
	if b.Missing {
		status := b.Status
		if status == 0 {
			status = 503
		}
		s += fmt.Sprintf(" (not there: %d)", status)
	}
	return s
}

func wait(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

func retryWord(r *model.Retry) string {
	if r == nil {
		return "none"
	}
	s := fmt.Sprintf("%d", r.Attempts)
	if len(r.On) > 0 {
		s += " on " + strings.Join(r.On, ",")
	}
	if len(r.StatusCodes) > 0 {
		s += fmt.Sprintf(" and %v", r.StatusCodes)
	}
	rest := *r
	rest.Attempts, rest.On, rest.StatusCodes = 0, nil, nil
	if text := contentWord(&rest); text != nothing && text != "attempts: 0" {
		s += ", " + strings.TrimPrefix(text, "attempts: 0, ")
	}
	return s
}

func editWord(e model.HeaderEdit) string {
	var words []string
	for _, h := range e.Set {
		words = append(words, fmt.Sprintf("%s=%s", h.Name, h.Value))
	}
	for _, h := range e.Add {
		words = append(words, fmt.Sprintf("+%s=%s", h.Name, h.Value))
	}
	for _, n := range e.Remove {
		words = append(words, "-"+n)
	}
	if len(words) == 0 {
		return nothing
	}
	return strings.Join(words, " ")
}

func mirrorsWord(in []model.Mirror) string {
	var words []string
	for _, m := range in {
		w := fmt.Sprintf("%s %s", backendsWord([]model.Backend{m.Backend}), model.Percent(m.PerMillion))
		if m.Backend.Policy != nil {
			w += " with " + contentWord(m.Backend.Policy)
		}
		if m.Shadow {
			w += " as -shadow"
		}
		words = append(words, w)
	}
	if len(words) == 0 {
		return nothing
	}
	return strings.Join(words, ", ")
}

func faultWord(f *model.Fault) string {
	if f == nil {
		return nothing
	}
	return strings.Join(f.Words(), ", ")
}

// contentWord writes the fields of a piece of the model that are set.
func contentWord(v any) string {
	var fields map[string]any
	if json.Unmarshal(model.Bytes(v), &fields) != nil || len(fields) == 0 {
		return nothing
	}
	words := make([]string, 0, len(fields))
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		words = append(words, k+": "+valueWord(k, fields[k]))
	}
	return strings.Join(words, ", ")
}

// durations are the fields that count nanoseconds.
var durations = []string{"perTryTimeout", "backoff", "backoffMax", "httpIdle", "connectTimeout", "maxDuration", "idle",
	"interval", "baseEjection", "maxEjection", "jitter", "duration", "pingInterval", "pingTimeout", "time", "ttl"}

func valueWord(key string, v any) string {
	switch x := v.(type) {
	case float64:
		if slices.Contains(durations, key) {
			return time.Duration(x).String()
		}
		return fmt.Sprintf("%.10g", x)
	case string:
		return x
	case map[string]any:
		words := make([]string, 0, len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			words = append(words, k+": "+valueWord(k, x[k]))
		}
		return "{" + strings.Join(words, ", ") + "}"
	case []any:
		words := make([]string, len(x))
		for i := range x {
			words[i] = valueWord(key, x[i])
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return fmt.Sprint(v)
}
