// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// agentStatus is what the lab needs to know of an agent's status.
type agentStatus struct {
	Revision string            `json:"revision"`
	Applied  string            `json:"applied"`
	Pods     map[string]string `json:"pods"`
}

// ask reads the status of a node's agent.
func (l *lab) ask(ctx context.Context, node string) (*agentStatus, error) {
	socket := filepath.Join(l.paths.node(node), "agent.sock")
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var s agentStatus
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return nil, fmt.Errorf("read status of agent %s: %w", node, err)
	}
	return &s, nil
}

// awaitAgents waits until the agents are ready for pods and returns for which they
// were not, and why.
func (l *lab) awaitAgents(ctx context.Context, pods []*pod) map[string]string {
	late := map[string]string{}
	if l.record.NoAgent {
		return late
	}
	for _, p := range pods {
		if !p.HostNetwork { // nothing of the datapath is the pod's own
			late[p.Key()] = "it has not been asked"
		}
	}
	_ = poll(ctx, agentLimit, 20*time.Millisecond, func() (bool, error) {
		for _, n := range l.record.Nodes {
			l.askAbout(ctx, n, pods, late)
		}
		return len(late) == 0, nil
	}) // what is still late then is the answer
	return late
}

func (l *lab) askAbout(ctx context.Context, node string, pods []*pod, late map[string]string) {
	var s *agentStatus
	var err error
	for _, p := range pods {
		if p.Node != node || late[p.Key()] == "" {
			continue
		}
		if s == nil && err == nil {
			s, err = l.ask(ctx, node)
		}
		switch {
		case err != nil:
			late[p.Key()] = err.Error()
		case s.Pods[p.Key()] == "ready":
			delete(late, p.Key())
		case s.Pods[p.Key()] == "":
			late[p.Key()] = "the agent does not know the pod"
		default:
			late[p.Key()] = s.Pods[p.Key()]
		}
	}
}

// revisions are what each agent has read last.
func (l *lab) revisions(ctx context.Context) map[string]string {
	out := map[string]string{}
	if l.record.NoAgent {
		return out
	}
	for _, n := range l.record.Nodes {
		if s, err := l.ask(ctx, n); err == nil {
			out[n] = s.Revision
		}
	}
	return out
}

// awaitChange waits a while until every agent that was there has put another
// revision to work.
func (l *lab) awaitChange(ctx context.Context, before map[string]string) {
	_ = poll(ctx, 2*time.Second, 20*time.Millisecond, func() (bool, error) {
		for n, old := range before {
			s, err := l.ask(ctx, n)
			if err != nil || s.Revision == old || s.Applied != s.Revision {
				return false, nil
			}
		}
		return true, nil
	}) // an agent that takes longer is not waited for
}
