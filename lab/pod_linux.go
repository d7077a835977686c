// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/lab/echo"
)

// Limits of waiting. A lab that is not as it should be when they end goes on, and
// says so.
const (
	agentLimit = 5 * time.Second  // for the agents to say that pods are ready
	readyLimit = 15 * time.Second // for pods to take connections
)

// makePod makes the pod's network and place, clearing away what an interrupted
// verb may have left.
func (l *lab) makePod(p *cluster.Pod) error {
	if err := l.removePod(context.Background(), p); err != nil {
		return err
	}
	if !p.HostNetwork {
		if err := l.wirePod(p); err != nil {
			return err
		}
	}
	name := podPlace(p)
	resolv := fmt.Sprintf("nameserver %s\nsearch %[2]s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", dnsAddress, p.Namespace)
	hosts := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, a := range p.Addresses {
		hosts += fmt.Sprintf("%s %s\n", a, hostname(p))
	}
	files, err := l.etcFiles(name, map[string]string{"/etc/resolv.conf": resolv, "/etc/hosts": hosts, "/etc/nsswitch.conf": "hosts: files dns\n"})
	if err != nil {
		return err
	}
	ns := l.paths.ns(name)
	if p.HostNetwork {
		ns = l.paths.ns(p.Node)
	}
	return l.place(name, place{Netns: ns, Cgroup: l.podCgroup(p), Files: files, Hide: l.paths.run, Path: l.bin()})
}

// etcFiles writes what processes of a place are to find at paths, and gives the files.
func (l *lab) etcFiles(name string, texts map[string]string) (map[string]string, error) {
	etc := l.paths.etc(name)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, fmt.Errorf("make place %s: %w", name, err)
	}
	files := map[string]string{}
	for path, text := range texts {
		file := filepath.Join(etc, filepath.Base(path))
		if err := writeFile(file, []byte(text)); err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err == nil { // nothing can be mounted on what is not there
			files[path] = file
		}
	}
	return files, nil
}

func hostname(p *cluster.Pod) string {
	if h := p.Object.Spec.Hostname; h != "" {
		return h
	}
	return p.Name
}

// removePod ends what is left of a pod; one that is not there is none.
func (l *lab) removePod(ctx context.Context, p *cluster.Pod) error {
	if err := endCgroup(ctx, l.podCgroup(p)); err != nil {
		return err
	}
	if !p.HostNetwork {
		if err := l.unwirePod(p); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(l.paths.etc(podPlace(p))); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.Key(), err)
	}
	return nil
}

// run starts those of the pods that do not run, each when its node's agent is ready
// for it, so that policy is there before traffic, and waits until all of them take
// connections.
func (l *lab) run(ctx context.Context, pods []*pod) error {
	if len(pods) == 0 {
		return nil
	}
	start := slices.DeleteFunc(slices.Clone(pods), (*pod).running)
	late := l.awaitAgents(ctx, start)
	for _, p := range start {
		if why := late[p.Key()]; why != "" {
			l.say("pod %s: started although its agent is not ready for it: %s", p.Key(), why)
		}
		if err := l.startPod(ctx, p); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	waiting := slices.Clone(pods)
	err := poll(ctx, readyLimit, 10*time.Millisecond, func() (bool, error) {
		n := len(waiting)
		waiting = slices.DeleteFunc(waiting, func(p *pod) bool {
			p.Ready = p.running() && l.connects(p)
			return p.Ready || !p.running()
		})
		if len(waiting) == n {
			return n == 0, nil
		}
		return len(waiting) == 0, l.write(l.cluster(false))
	})
	for _, p := range pods {
		if p.Ready {
			l.say("pod %s: ready on %s, %s", p.Key(), p.Node, addrList(p.Addresses))
		} else {
			l.say("pod %s: not ready: %s", p.Key(), l.podState(p))
		}
	}
	if ctx.Err() == nil && len(waiting) > 0 {
		return nil // said above
	}
	return err
}

func addrList(as []netip.Addr) string {
	var s []string
	for _, a := range as {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}

func (l *lab) startPod(ctx context.Context, p *pod) error {
	// A container that has ended takes the others with it.
	if err := endCgroup(ctx, l.podCgroup(p.Pod)); err != nil {
		return err
	}
	p.Processes = nil
	for _, pr := range p.Programs {
		command := l.program(pr)
		if len(command) == 0 {
			continue
		}
		env, err := podEnv(p.Pod, pr)
		if err != nil {
			return err
		}
		proc, err := l.start(podPlace(p.Pod), p.Namespace+"_"+p.Name+"_"+pr.Container, env, command...)
		if proc.PID != 0 {
			p.Processes = append(p.Processes, proc)
		}
		if err != nil {
			return fmt.Errorf("start pod %s: %w", p.Key(), err)
		}
	}
	return nil
}

// program is the command line that runs for a container; none if nothing does.
func (l *lab) program(pr cluster.Program) []string {
	switch pr.Runs {
	case cluster.RunsEcho:
		out := []string{l.record.Binary, echoCommand}
		for _, p := range pr.Ports {
			out = append(out, "--port", fmt.Sprintf("%d=%s", p.Number, p.Speaks))
		}
		return append(out, pr.Args...)
	case cluster.RunsLoad:
		return append([]string{l.record.Binary, loadCommand}, pr.Args...)
	case cluster.RunsCommand:
		if pr.Shell != "" {
			return append([]string{"/bin/sh", "-c", "exec " + pr.Shell + ` "$@"`, pr.Container}, pr.Args...)
		}
		return slices.Concat(pr.Command, pr.Args)
	}
	return nil
}

// podEnv is the environment of a program besides this one's.
func podEnv(p *cluster.Pod, pr cluster.Program) ([]string, error) {
	facts, err := json.Marshal(echo.Facts{Pod: p.Name, Node: p.Node, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount,
		Deployment: p.Workload, Labels: p.Labels})
	if err != nil {
		return nil, fmt.Errorf("describe pod %s: %w", p.Key(), err)
	}
	env := []string{"HOSTNAME=" + hostname(p), echo.FactsVariable + "=" + string(facts)}
	for _, e := range pr.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	return env, nil
}

// alive reports whether anything of the pod runs.
func (p *pod) alive() bool { return slices.ContainsFunc(p.Processes, process.alive) }

// running reports whether all of the pod runs.
func (p *pod) running() bool {
	want := 0
	for _, pr := range p.Programs {
		if pr.Runs != cluster.RunsNothing {
			want++
		}
	}
	return len(p.Processes) == want && !slices.ContainsFunc(p.Processes, func(x process) bool { return !x.alive() })
}

// connects reports whether the pod takes connections on all of its TCP ports. It
// is tried from inside, where no policy is in between.
func (l *lab) connects(p *pod) bool {
	place := podPlace(p.Pod)
	if p.HostNetwork {
		place = p.Node
	}
	return inNetns(l.paths.ns(place), func() error {
		for _, pr := range p.Programs {
			for _, port := range pr.Ports {
				if pr.Runs != cluster.RunsNothing && port.Speaks != "udp" {
					if err := dial(netip.AddrPortFrom(p.Addresses[0], port.Number)); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}) == nil
}

// dial connects by the calling thread, which is in another namespace than others
// of this process. The address is the machine's own, so there is no waiting.
func dial(to netip.AddrPort) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Connect(s, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// podState says how the pod is.
func (l *lab) podState(p *pod) string {
	if p.running() {
		if p.Ready {
			return "running"
		}
		return "running, but takes no connections"
	}
	for _, x := range p.Processes {
		if !x.alive() {
			return "ended: " + x.tail()
		}
	}
	return "not started"
}
