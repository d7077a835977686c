// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/lease"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

const (
	// applyLimit is how long what is configured may not be applied until other nodes are
	// told. It leaves time for one push that is not acknowledged, and for the next one.
	applyLimit = 10 * time.Second
	// loopLimit is how long one round of the agent's loop may take.
	loopLimit = 15 * time.Second
)

// instanceName tells agents apart, and people where one runs.
func instanceName() string {
	host, _ := os.Hostname()
	name := cmp.Or(os.Getenv("POD_NAME"), host, "agent")
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		name = ns + "/" + name
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // it never fails
	return name + "_" + hex.EncodeToString(random)
}

// startLease has the other nodes told of this agent, if its objects are an API server's.
func (a *agent) startLease(start func(name string, f func(context.Context) error)) error {
	src, ok := a.src.(apiServer)
	if !ok {
		return nil
	}
	w, err := lease.New(lease.Options{Config: a.opts.APIServer, Namespace: a.opts.Pipeline.Leases, Node: a.opts.Node, Instance: a.opts.instance,
		Version: version.String(), Renew: a.opts.LeaseRenew, State: a.pulse, Source: src.Source, Log: a.log})
	if err != nil {
		return err
	}
	a.lease = w
	start("lease", w.Run)
	return nil
}

// pulse is what there is to tell of this node.
func (a *agent) pulse(now time.Time) lease.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := lease.State{Ready: a.applied != "", Nodes: len(a.pipe.Rows(translators.Nodes)), Revision: a.applied, Findings: a.findingsNoteLocked(),
		Guards: a.pluginIn != ""}
	if o, _ := a.pipe.Get(translators.Objects(objects.NodeKind), a.opts.Node).(*objects.Object); o != nil {
		s.NodeUID = string(o.Value.(*corev1.Node).UID)
	}
	switch {
	case now.Sub(a.round) >= loopLimit:
		s.Behind = fmt.Sprintf("its agent has been busy with one thing for more than %s", loopLimit)
	case !a.lagging.IsZero() && now.Sub(a.lagging) >= applyLimit:
		s.Behind = fmt.Sprintf("it has not applied within %s what is configured", applyLimit)
		if p := a.problemLocked(); p != "" {
			s.Behind += ": " + p
		}
	case a.ownBehindLocked(now) != "": // what its checks are worth, other nodes cannot tell by namespace
		s.Behind = fmt.Sprintf("the proxy of namespace %s has not acknowledged within %s what is configured", a.ownBehindLocked(now), applyLimit)
	}
	return s
}

// beginRound notes that the loop goes on.
func (a *agent) beginRound() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round = time.Now()
}

// peers are the agents of the other nodes, as this one hears of them.
func (a *agent) peers() []kube.Peer {
	src, ok := a.src.(apiServer)
	if !ok {
		return nil
	}
	var out []kube.Peer
	for _, p := range src.Peers() {
		if p.Node != a.opts.Node {
			out = append(out, p)
		}
	}
	return out
}
