// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"fairlead.io/fairlead/lab/cluster"
)

// running is the state of a process that runs.
const running = "running"

// daemonNames are the processes of a node in the order in which they start.
func (l *lab) daemonNames() []string {
	if l.record.NoAgent {
		return []string{"dns"}
	}
	return []string{"agent", "proxy", "dns"}
}

// daemons starts those processes of the nodes that do not run and that nobody has
// stopped, and waits until names can be asked for.
func (l *lab) daemons(ctx context.Context) error {
	for _, what := range l.daemonNames() {
		for _, n := range l.record.Nodes {
			if p, ok := l.record.Daemons[n+"/"+what]; ok && (p.Stopped || p.alive()) {
				continue
			}
			if err := l.daemon(n, what); err != nil {
				return err
			}
		}
	}
	for _, n := range l.record.Nodes {
		if l.daemonState(n, "dns") != running {
			continue
		}
		err := poll(ctx, agentLimit, 10*time.Millisecond, func() (bool, error) {
			if why := l.daemonState(n, "dns"); why != running {
				return false, errors.New(why)
			}
			return inNetns(l.paths.ns(n), func() error { return dial(netip.AddrPortFrom(dnsAddress, dnsPort)) }) == nil, nil
		})
		if err != nil {
			return fmt.Errorf("wait for DNS of %s: %w", n, err)
		}
	}
	return nil
}

// daemon starts one, with extra arguments behind the usual ones.
func (l *lab) daemon(node, what string, extra ...string) error {
	var args []string
	switch what {
	case "agent":
		args = []string{"agent", "--node", node, "--source", l.paths.source(), "--run", l.paths.node(node), "--bpffs", l.paths.bpf(node),
			"--cgroup", l.nodeCgroup(node), "--netns", l.paths.netns(), "--uplink", uplink}
	case "proxy":
		args = []string{"proxy", "--node", node, "--run", l.paths.node(node), "--bpffs", l.paths.bpf(node)}
		if l.record.EnvoyPath != "" {
			args = append(args, "--envoy", l.record.EnvoyPath)
		}
	case "dns":
		args = []string{dnsCommand, "--source", l.paths.source(), "--listen", netip.AddrPortFrom(dnsAddress, dnsPort).String()}
	}
	at := node
	if what == "proxy" {
		at = proxyPlace(node)
	}
	p, err := l.start(at, node+"-"+what, nil, slices.Concat([]string{l.record.Binary}, args, extra)...)
	if p.PID != 0 {
		l.record.Daemons[node+"/"+what] = p
	}
	return err
}

// daemonState is "running", or what became of a node's process.
func (l *lab) daemonState(node, what string) string {
	p, ok := l.record.Daemons[node+"/"+what]
	switch {
	case !ok:
		return "not started"
	case p.alive():
		return running
	case p.Stopped:
		return "stopped"
	}
	return "ended: " + p.tail()
}

// Stop ends a process of a node, its agent, proxy or dns, by a signal. It stays away until Start.
func Stop(ctx context.Context, name, node, what string, sig syscall.Signal) error {
	return withDaemon(ctx, name, node, what, func(l *lab) error {
		p := l.record.Daemons[node+"/"+what]
		if err := p.signal(sig); err != nil {
			return err
		}
		if err := poll(ctx, 20*time.Second, 2*time.Millisecond, func() (bool, error) { return !p.alive(), nil }); err != nil {
			return fmt.Errorf("stop %s of %s: %w", what, node, err)
		}
		p.Stopped = true
		l.record.Daemons[node+"/"+what] = p
		return l.record.save()
	})
}

// Start starts a process of a node that Stop or an accident has ended, with extra
// arguments if there are any. One that runs is left alone.
func Start(ctx context.Context, name, node, what string, extra ...string) error {
	return withDaemon(ctx, name, node, what, func(l *lab) error {
		if l.daemonState(node, what) == running {
			return nil
		}
		if err := l.daemon(node, what, extra...); err != nil {
			return err
		}
		return l.record.save()
	})
}

func withDaemon(ctx context.Context, name, node, what string, f func(*lab) error) error {
	k, l, err := open(ctx, cmp.Or(name, DefaultName), nil)
	if err != nil {
		return err
	}
	defer k.unlock()
	if !slices.Contains(l.record.Nodes, node) || !slices.Contains(l.daemonNames(), what) {
		return fmt.Errorf("lab %s has no %s on a node %s", l.record.Name, what, node)
	}
	return f(l)
}

// nodeStatus says how a node is.
func (l *lab) nodeStatus(node string) NodeStatus {
	s := NodeStatus{Name: node, Addresses: cluster.NodeAddresses(l.nodeNumber(node)), Processes: map[string]string{}}
	for _, what := range l.daemonNames() {
		s.Processes[what] = l.daemonState(node, what)
	}
	return s
}
