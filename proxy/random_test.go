// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

// TestRandomRoutesLoad makes routes by chance, of values that users might write, and
// some that nobody should: what can be rendered, Envoy takes.
func TestRandomRoutesLoad(t *testing.T) {
	const tables, batch = 5000, 500
	e := newEager(t)
	g := generator{rand.New(rand.NewPCG(1, 2))}
	rendered := 0
	for i := 0; i < tables; i += batch {
		var rows []any
		byName := map[string]plan.Route{}
		for j := i; j < i+batch; j++ {
			route := g.route(fmt.Sprint("r", j))
			table := &plan.RouteTable{Name: fmt.Sprint("random-", j), Routes: []plan.Route{route}}
			if _, err := render.RouteTable(table); err != nil {
				continue
			}
			rendered++
			byName[table.Name] = route
			rows = append(rows, led(j, table)...)
		}
		o := e.push(rows...)
		for _, r := range o.Rejected {
			t.Errorf("%s\n%s", r.Detail, model.Bytes(byName[r.Name]))
		}
		if o.Clients != 1 {
			t.Fatalf("Envoy is gone: %+v", o)
		}
	}
	if rendered < tables/5 {
		t.Errorf("only %d of %d could be rendered", rendered, tables)
	}
	t.Logf("%d of %d rendered", rendered, tables)
}

// generator draws parts of routes.
type generator struct{ *rand.Rand }

func draw[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// some is a part with a chance of one in n.
func some[T any](g generator, n int, make func() T) *T {
	if g.IntN(n) != 0 {
		return nil
	}
	v := make()
	return &v
}

func list[T any](g generator, make func() T) []T {
	var out []T
	for range g.IntN(3) {
		out = append(out, make())
	}
	return out
}

// usual is a usual value most of the time, and else one that may be wrong.
func usual[T any](g generator, good []T, bad ...T) T {
	if g.IntN(60) == 0 {
		return draw(g, bad...)
	}
	return draw(g, good...)
}

func (g generator) text() string {
	return usual(g, []string{"a", "www.example.com", "x-a", "100%", "%REQ(x)%", "ä", "*"},
		"", " ", "a b", "a,b", "\\1", "\n", "\x00", "\xff", "a\x7f", strings.Repeat("x", 70_000))
}

func (g generator) path() string {
	return usual(g, []string{"/", "/a", "/a/b", "/a.b", "/A", "/a/", "/100%", "/a*", "/ä", "/(a"},
		"", "a", "//", "/a?b", "/a#b", "/a b", "/\\0", "/\n", "/\xff", "/"+strings.Repeat("x", 70_000))
}

func (g generator) time() time.Duration {
	return usual(g, []time.Duration{0, time.Nanosecond, time.Millisecond, 25 * time.Millisecond, time.Second, time.Hour}, -1, math.MinInt64, math.MaxInt64)
}

func (g generator) status() uint32 {
	return usual(g, []uint32{200, 301, 302, 303, 307, 308, 404, 500, 599}, 0, 99, 100, 600, math.MaxUint32)
}

func (g generator) share() uint32 {
	return usual(g, []uint32{0, 1, 500_000, 1_000_000}, 1_000_001, math.MaxUint32)
}

func (g generator) match() model.StringMatch {
	return model.StringMatch{Kind: usual(g, []model.MatchKind{model.Exact, model.Prefix, model.Suffix, model.Regex, model.Present}, model.Segments, model.Template, "moon"),
		Value: g.text(), IgnoreCase: g.IntN(2) == 0}
}

func (g generator) pathMatch() model.StringMatch {
	return model.StringMatch{Kind: usual(g, []model.MatchKind{model.Exact, model.Prefix, model.Segments, model.Regex}, model.Present, model.Suffix, ""),
		Value: g.path(), IgnoreCase: g.IntN(2) == 0}
}

func (g generator) named() model.NamedMatch {
	return model.NamedMatch{Name: usual(g, []string{"x-a", "q", "content-type"}, "", "X-A", ":path", "x a", render.DestinationHeader),
		Match: g.match(), Not: g.IntN(5) == 0, MissingEmpty: g.IntN(5) == 0}
}

func (g generator) header() model.Header {
	return model.Header{Name: usual(g, []string{"x-a", "x-b", ":authority"}, "", "X-A", ":path", "host", "x a", render.DestinationHeader), Value: g.text()}
}

func (g generator) edit() model.HeaderEdit {
	if g.IntN(4) != 0 {
		return model.HeaderEdit{}
	}
	return model.HeaderEdit{Set: list(g, g.header), Add: list(g, g.header), Remove: list(g, func() string { return g.header().Name })}
}

func (g generator) cluster() plan.WeightedCluster {
	c := plan.WeightedCluster{Name: usual(g, []string{"a", "shop/web:80", "ä"}, "", "\x00", strings.Repeat("x", 70_000)),
		Weight: usual(g, []uint32{1, 2, 100, 1_000_000}, 0, 1<<31, math.MaxUint32), RequestHeaders: g.edit(), ResponseHeaders: g.edit()}
	if g.IntN(3) == 0 {
		c.Name, c.Status = usual(g, []string{""}, "a"), g.status()
	}
	return c
}

func (g generator) redirect() model.Redirect {
	return model.Redirect{Status: usual(g, []uint32{301, 302, 303, 307, 308}, 0, 200, 304),
		Scheme: usual(g, []string{"", "http", "https", "HTTPS"}, "a b", "\n", "ä"),
		Host:   usual(g, []string{"", "www.example.com", "[fd00::1]", "a_b"}, "a:80", "a/b", "a b", "\n", "ä"),
		Port:   draw[uint16](g, 0, 80, 443, 8080), Path: draw(g, "", "", g.path(), g.path()+"?a=b"), Prefix: some(g, 3, g.path)}
}

func (g generator) rewrite() model.Rewrite {
	return model.Rewrite{Path: draw(g, "", g.path()), FullPath: draw(g, "", "", g.path()), Authority: draw(g, "", g.text()),
		PathRegex: some(g, 4, func() model.RegexEdit {
			return model.RegexEdit{Match: usual(g, []string{"/(a+)", "^/a", "/[^/]+"}, "", "(", "ä+", "(?i)ä"),
				Replacement: usual(g, []string{"/b", "/\\0", ""}, "\\1", "\\", "\\9", "\\x", "\n")}
		})}
}

func (g generator) retry() model.Retry {
	return model.Retry{Attempts: usual(g, []uint32{1, 2, 10}, 0, math.MaxUint32), On: list(g, func() string { return usual(g, []string{"5xx", "reset", "unavailable"}, "", "5xy", "a,b") }),
		StatusCodes: list(g, g.status), PerTryTimeout: g.time(), Backoff: g.time(), BackoffMax: g.time(),
		MaxBody: draw[uint32](g, 0, 1, 65536, math.MaxUint32), AvoidPrevious: g.IntN(2) == 0, OtherLocations: g.IntN(2) == 0}
}

func (g generator) fault() model.Fault {
	return model.Fault{Delay: g.time(), DelayPerMillion: g.share(), AbortPerMillion: g.share(), AbortStatus: draw(g, 0, g.status()), AbortGRPC: usual(g, []uint32{0, 0, 14, 16}, 17, math.MaxUint32)}
}

func (g generator) cors() model.CORS {
	return model.CORS{Origins: list(g, g.match), Methods: list(g, g.text), Headers: list(g, g.text), Expose: list(g, g.text),
		MaxAge: some(g, 2, func() int64 { return draw[int64](g, 0, 60, -1, math.MinInt64, math.MaxInt64) }), Credentials: g.IntN(2) == 0, AnswerAll: g.IntN(2) == 0}
}

func (g generator) route(id string) plan.Route {
	return plan.Route{ID: id,
		Match: model.RouteMatch{Path: some(g, 2, g.pathMatch), Method: some(g, 8, g.match), Scheme: some(g, 8, g.match), Authority: some(g, 8, g.match),
			Headers: list(g, g.named), Query: list(g, g.named), SourceNamespace: draw(g, "", "", "shop", "a.b", "(")},
		SourceSelects: draw(g, "", "", "p1"),
		Clusters:      list(g, g.cluster),
		Direct:        some(g, 10, func() model.Direct { return model.Direct{Status: g.status(), Body: g.text()} }),
		Redirect:      some(g, 5, g.redirect),
		Original:      g.IntN(10) == 0, App: draw(g, model.AppHTTP, model.AppGRPC, model.AppDetect), Checked: g.IntN(2) == 0,
		RequestHeaders: g.edit(), ResponseHeaders: g.edit(), Rewrite: some(g, 3, g.rewrite),
		Mirrors: list(g, func() plan.Mirror {
			return plan.Mirror{Cluster: usual(g, []string{"a", "b"}, ""), PerMillion: g.share()}
		}),
		Fault: some(g, 3, g.fault), CORS: some(g, 3, g.cors),
		Timeout: g.time(), IdleTimeout: g.time(), Retry: some(g, 2, g.retry)}
}
