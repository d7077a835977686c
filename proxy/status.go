// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

// Status is a picture of a node proxy.
type Status struct {
	Node  string      `json:"node"`
	Envoy EnvoyStatus `json:"envoy"`
	Feed  FeedStatus  `json:"feed"`
	// Served is what Envoy is served.
	Served serve.Status `json:"served"`
	// StateError says why the state that an earlier process saved was not used.
	StateError string `json:"stateError,omitempty"`
}

// EnvoyStatus is the state of Envoy. While it is not Connected, changes are stored
// and acknowledged, but nobody has judged them.
type EnvoyStatus struct {
	PID       int    `json:"pid,omitempty"` // 0: none runs
	Version   string `json:"version,omitempty"`
	State     string `json:"state"` // Envoy's own word ("LIVE"), "stopped" or "silent"
	Connected bool   `json:"connected"`
	Adopted   bool   `json:"adopted,omitempty"` // started by an earlier proxy
	Starts    int    `json:"starts"`            // Envoys that this process has had
}

// FeedStatus is the state of the stream to the agent.
type FeedStatus struct {
	Connected bool   `json:"connected"`
	Synced    bool   `json:"synced"` // the agent was heard completely, once
	Error     string `json:"error,omitempty"`
}

func (p *proxy) status(ctx context.Context) Status {
	out := Status{Node: p.opts.Node, Served: p.server.Status()}
	out.Envoy.Connected = slices.Contains(out.Served.Clients, p.opts.Node)
	out.Envoy.State = "stopped"
	p.mu.Lock()
	out.Envoy.Starts = p.starts
	if p.envoy != nil {
		out.Envoy.PID, out.Envoy.Adopted = p.envoy.pid, p.envoy.adopted
	}
	if p.stateErr != nil && !errors.Is(p.stateErr, errNoState) {
		out.StateError = p.stateErr.Error()
	}
	p.mu.Unlock()
	if out.Envoy.PID != 0 {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		out.Envoy.State = "silent"
		if info, err := p.runner.info(ctx); err == nil {
			out.Envoy.Version, out.Envoy.State = info.Version, info.State
		}
	}
	p.feed.mu.Lock()
	out.Feed = FeedStatus{Connected: p.feed.session != nil, Synced: p.feed.wasSync}
	if p.feed.err != nil {
		out.Feed.Error = p.feed.err.Error()
	}
	p.feed.mu.Unlock()
	return out
}

func (p *proxy) writeStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("content-type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p.status(r.Context())); err != nil {
		p.log.Debug("status not sent", "error", err)
	}
}

// ReadStatus asks the proxy of a run folder.
func ReadStatus(ctx context.Context, runDir string) (Status, error) {
	path := PathsIn(runDir).Control
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	var s Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return s, fmt.Errorf("ask the proxy: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("ask the proxy: %w", err)
	}
	return s, nil
}
