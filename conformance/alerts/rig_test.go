// SPDX-License-Identifier: Apache-2.0

// Package alerts sees each alert of deploy/chart/alerts.yaml fire: Prometheus' own engine
// evaluates the rules on what an agent's handler of metrics says of a node that gets into the
// state that the alert is about, and out of it again.
package alerts

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/teststorage"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/metrics"
)

const (
	file  = "../../deploy/chart/alerts.yaml"
	every = 30 * time.Second // between scrapes, and between evaluations
)

// server is a Prometheus that scrapes one agent.
type server struct {
	t     *testing.T
	db    *teststorage.TestStorage
	group *rules.Group
	now   time.Time
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, db: teststorage.New(t), now: time.Unix(1_800_000_000, 0)}
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: p, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { _ = engine.Close() }) // nothing is written
	m := rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		QueryFunc:            rules.EngineQueryFunc(engine, s.db),
		NotifyFunc:           func(context.Context, string, ...*rules.Alert) {},
		Context:              t.Context(), AppendableV2: s.db, Queryable: s.db, Logger: slog.New(slog.DiscardHandler),
		Parser: p,
	})
	groups, errs := m.LoadGroups(every, labels.EmptyLabels(), "", nil, false, file)
	if len(errs) > 0 || len(groups) != 1 {
		t.Fatalf("%s: %v, %d groups", file, errs, len(groups))
	}
	for _, g := range groups {
		s.group = g
	}
	return s
}

// scrape takes what an agent says of a status; nil: it does not answer.
func (s *server) scrape(st *agent.Status) {
	s.t.Helper()
	app := s.db.Appender(s.t.Context())
	add := func(name string, value float64, ls ...string) {
		l := labels.FromStrings(append([]string{"__name__", name, "job", "fairlead-agent", "instance", "node-1"}, ls...)...)
		if _, err := app.Append(0, l, s.now.UnixMilli(), value); err != nil {
			s.t.Fatal(err)
		}
	}
	h := metrics.Handler(metrics.Node{Status: func(context.Context) (*agent.Status, error) {
		if st == nil {
			return nil, fmt.Errorf("no answer")
		}
		return st, nil
	}})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if up := w.Code == http.StatusOK; up != (st != nil) {
		s.t.Fatalf("the agent answers %d", w.Code)
	}
	if st == nil {
		add("up", 0)
	} else {
		add("up", 1)
		p := expfmt.NewTextParser(model.UTF8Validation)
		families, err := p.TextToMetricFamilies(w.Body)
		if err != nil {
			s.t.Fatal(err)
		}
		for name, f := range families {
			for _, m := range f.GetMetric() {
				var ls []string
				for _, l := range m.GetLabel() {
					ls = append(ls, l.GetName(), l.GetValue())
				}
				switch {
				case m.GetGauge() != nil:
					add(name, m.GetGauge().GetValue(), ls...)
				case m.GetCounter() != nil:
					add(name, m.GetCounter().GetValue(), ls...)
				}
			}
		}
	}
	if err := app.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

// live lets time pass in which a node is as status says at each moment since the beginning.
func (s *server) live(length time.Duration, status func(since time.Duration) *agent.Status) {
	s.t.Helper()
	for since := time.Duration(0); since < length; since += every {
		s.scrape(status(since))
		s.group.Eval(s.t.Context(), s.now)
		s.now = s.now.Add(every)
	}
}

// firing are the alerts that fire, sorted.
func (s *server) firing() []string {
	s.t.Helper()
	var out []string
	for _, r := range s.group.AlertingRules() {
		if err := r.LastError(); err != nil {
			s.t.Errorf("%s: %v", r.Name(), err)
		}
		if r.State() == rules.StateFiring {
			out = append(out, r.Name())
		}
	}
	slices.Sort(out)
	return out
}
