// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// serveControl answers on the control socket, which is root's alone: people, the agent,
// probes, and the proxy that follows this one.
func (p *proxy) serveControl(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		p.answer(w, p.status(r.Context()))
	})
	mux.HandleFunc("GET /in-use", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, append([]string{}, p.server.InUse()...))
	})
	mux.HandleFunc("POST /replace", func(w http.ResponseWriter, r *http.Request) {
		done, err := p.envoys.replace(r.Context(), r.URL.Query().Has("force"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		p.answer(w, done)
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		p.answer(w, p.readiness(r.Context()))
	})
	mux.HandleFunc("GET /versions", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, versionsOf(p.server.Resources()))
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		body, err := marshalState(state{p.server.Resources(), p.server.InUse()})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if _, err := w.Write(body); err != nil {
			p.log.Debug("answer not sent", "error", err)
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		text, err := p.envoys.metrics(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if _, err := w.Write(text); err != nil {
			p.log.Debug("answer not sent", "error", err)
		}
	})
	mux.HandleFunc("POST /room", func(w http.ResponseWriter, _ *http.Request) {
		p.envoys.makeRoom()
		p.answer(w, struct{}{})
	})
	mux.HandleFunc("POST /hand-over", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.handOver(); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		p.answer(w, struct{}{})
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() { srv.Close() })
	defer stopped()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

func (p *proxy) answer(w http.ResponseWriter, v any) {
	w.Header().Set("content-type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		p.log.Debug("answer not sent", "error", err)
	}
}

// ReadStatus asks the proxy of a run folder.
func ReadStatus(ctx context.Context, runDir string) (Status, error) {
	var s Status
	err := call(ctx, PathsIn(runDir).Control, http.MethodGet, "/status", &s)
	return s, err
}

// ReadMetrics is what the Envoy that serves counts, in Prometheus' text format.
func ReadMetrics(ctx context.Context, runDir string) ([]byte, error) {
	return fetch(ctx, PathsIn(runDir).Control, http.MethodGet, "/metrics")
}

// Replace has the proxy of a run folder replace its Envoy by what it would start
// now, if that differs from what runs or force is set; with force even by one that
// rejects what the old one serves. It returns when the new one
// serves and the old one drains, or when it is clear that it will not: that is no
// error, but what Replacement says.
func Replace(ctx context.Context, runDir string, force bool) (Replacement, error) {
	path := "/replace"
	if force {
		path += "?force"
	}
	var r Replacement
	err := call(ctx, PathsIn(runDir).Control, http.MethodPost, path, &r)
	return r, err
}

// Readiness is what a probe is told.
type Readiness struct {
	// Ready: this proxy's Envoy has what it needs, and the kernel gives it the new
	// connections, or did so until another proxy took over.
	Ready bool `json:"ready"`
	// Why says more, in words.
	Why      string `json:"why"`
	InCharge bool   `json:"inCharge"`
	Bank     int    `json:"bank"`
}

// ReadReadiness asks the proxy of a run folder that is in the caller's pid namespace:
// not the one that is in charge, if that is another. An error means that it does not
// answer.
func ReadReadiness(ctx context.Context, runDir string) (Readiness, error) {
	var r Readiness
	err := call(ctx, PathsIn(runDir).Own, http.MethodGet, "/ready", &r)
	return r, err
}

// call asks a proxy by its control socket.
func call(ctx context.Context, socket, method, path string, out any) error {
	b, err := fetch(ctx, socket, method, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	return nil
}

func fetch(ctx context.Context, socket, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := overUnix(socket).Do(req)
	if err != nil {
		var of *url.Error // whose address means nothing to people
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, fmt.Errorf("ask the proxy: %w; is it running on this node?", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the proxy: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the proxy: %s", bytes.TrimSpace(b))
	}
	return b, nil
}
