// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/translators/objects"
)

// ask reads the status of a node's agent.
func (l *lab) ask(ctx context.Context, node string) (*agent.Status, error) {
	if why := l.daemonState(node, "agent"); why != running {
		return nil, fmt.Errorf("agent of %s: %s", node, why)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return agent.NewClient(filepath.Join(l.paths.node(node), agent.Socket)).Status(ctx)
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
			late[p.Key()] = "the agent has not been asked"
		}
	}
	_ = poll(ctx, agentLimit, 20*time.Millisecond, func() (bool, error) {
		for _, n := range l.record.Nodes {
			l.askAbout(ctx, n, pods, late)
		}
		hope := slices.ContainsFunc(pods, func(p *pod) bool {
			return late[p.Key()] != "" && l.daemonState(p.Node, "agent") == running
		})
		return !hope, nil
	}) // what is still late then is the answer
	return late
}

func (l *lab) askAbout(ctx context.Context, node string, pods []*pod, late map[string]string) {
	var s *agent.Status
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

// awaitApplied waits until every agent that runs has put the cluster folder to
// work as it is now.
func (l *lab) awaitApplied(ctx context.Context) {
	if l.record.NoAgent {
		return
	}
	want := agent.Revision(objects.Files([]string{l.paths.source()}, nil))
	late := map[string]string{}
	for _, n := range l.record.Nodes {
		late[n] = "it has not been asked"
	}
	_ = poll(ctx, agentLimit, 10*time.Millisecond, func() (bool, error) {
		for n := range late {
			if l.daemonState(n, "agent") != running {
				delete(late, n)
				continue
			}
			s, err := l.ask(ctx, n)
			switch {
			case err != nil:
				late[n] = err.Error()
			case s.Applied == want:
				delete(late, n)
			default:
				late[n] = "at an older state"
				if s.Problem != "" {
					late[n] += ": " + s.Problem
				}
			}
		}
		return len(late) == 0, nil
	}) // whoever takes longer is named below
	for _, n := range slices.Sorted(maps.Keys(late)) {
		l.say("agent of %s: still %s", n, late[n])
	}
}
