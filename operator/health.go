// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/crds"
	"fairlead.io/fairlead/kube/lead"
	"fairlead.io/fairlead/kube/status"
)

// stuckAfter is when a loop that does not turn is taken for one that never will.
const stuckAfter = 5 * time.Minute

// State is what the operator tells of itself at /status.
type State struct {
	Identity  string        `json:"identity"`
	Namespace string        `json:"namespace"`
	Version   string        `json:"version"`
	Uptime    string        `json:"uptime"`
	Election  lead.State    `json:"election"`
	Retired   bool          `json:"retired,omitempty"`
	APIServer kube.Health   `json:"apiServer"`
	Objects   int           `json:"objects"`
	Computed  int           `json:"computed"` // times
	Statuses  status.Counts `json:"statuses"`
	Events    status.Counts `json:"events"`
	// Definitions of the leader's.
	Definitions      []crds.Result `json:"definitions,omitempty"`
	DefinitionsError string        `json:"definitionsError,omitempty"`
}

func (p *operator) state() State {
	s := State{Identity: p.o.Identity, Namespace: p.o.Namespace, Version: version.String(), Uptime: time.Since(p.started).Round(time.Second).String(), Election: p.election.State(),
		APIServer: p.src.Health(), Statuses: p.writer.Counts(), Events: p.events.Counts()}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Retired, s.Objects, s.Computed, s.Definitions, s.DefinitionsError = p.retired, p.objects, p.computed, p.crds, p.crdError
	return s
}

// serveHealth answers probes: /healthz as long as it works, /readyz once all was read, and
// /status.
func (p *operator) serveHealth(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		quiet := time.Since(p.turned)
		p.mu.Unlock()
		if quiet > stuckAfter {
			http.Error(w, fmt.Sprintf("nothing was done for %s", quiet.Round(time.Second)), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if h := p.src.Health(); !h.Complete {
			http.Error(w, h.String(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(p.state())
	})
	l, err := net.Listen("tcp", p.o.Health)
	if err != nil {
		return fmt.Errorf("answer probes: %w", err)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer probes at %s: %w", p.o.Health, err)
	}
	return nil
}
