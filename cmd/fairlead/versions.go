// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/kube/installed"
)

// nodeStatus is what status tells of a node: what its agent says and, of a cluster's, what
// is known of the operator.
type nodeStatus struct {
	*agent.Status
	Operator *installed.Operator `json:"operator,omitempty"`
}

// operators finds the operator that leads, if the agents are a cluster's.
func (t *target) operators(ctx context.Context) (*installed.Operator, error) {
	if cluster, err := t.ofCluster(); err != nil || !cluster {
		return nil, err
	}
	cfg, err := t.server.config()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readLimit, errSlow)
	defer cancel()
	return installed.FindOperator(ctx, cfg)
}

func operatorLine(o installed.Operator, now time.Time) string {
	if o.Problem != "" {
		return "its version is not known: " + o.Problem
	}
	if o.Holder == "" {
		return fmt.Sprintf("none leads; the last was of version %s", orUnknown(o.Version))
	}
	who := fmt.Sprintf("version %s, %s leads", orUnknown(o.Version), o.Holder)
	switch age := now.Sub(o.Renewed).Round(time.Second); {
	case age <= -clocksAgree:
		return fmt.Sprintf("%s; its node's clock is %s ahead of this machine's: set the one that is wrong, by NTP", who, -age)
	case age >= clocksAgree:
		return fmt.Sprintf("%s, and said so %s ago: its node's clock is behind this machine's, or no operator runs; kubectl get pods -n %s tells", who, age, o.Namespace)
	default:
		return fmt.Sprintf("%s, and said so %s ago", who, max(age, 0))
	}
}

// versionsLine tells of agents of different versions, and of a proxy of another one than its
// agent; "" if all are of the same.
func versionsLine(s *nodeStatus) string {
	by := map[string][]string{}
	add := func(v, who string) { v = orUnknown(v); by[v] = append(by[v], who) }
	add(s.Version, "this agent")
	if s.Proxy != nil && s.Proxy.Version != s.Version {
		add(s.Proxy.Version, "this proxy")
	}
	if o := s.Operator; o != nil && o.Problem == "" && o.Version != s.Version {
		add(o.Version, "the operator")
	}
	for _, p := range s.Peers {
		add(p.Version, "node "+p.Node)
	}
	if len(by) == 1 {
		return ""
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(by)) {
		who := by[v]
		if n := len(who); n > 3 {
			who = append(who[:2:2], fmt.Sprintf("%d others", n-2))
		}
		parts = append(parts, v+" ("+strings.Join(who, ", ")+")")
	}
	return "DIFFERENT ones run side by side: " + strings.Join(parts, ", ") + ": as it is while a rollout goes on; if none does, kubectl rollout status tells what keeps it"
}

// orUnknown is the version of a program that may be too old to say it.
func orUnknown(v string) string { return cmp.Or(v, version.Unknown) }
