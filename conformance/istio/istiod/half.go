// SPDX-License-Identifier: Apache-2.0

package istiod

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// Half runs scenarios as Istio does.
type Half struct {
	envoy string // binary
	dir   string
	ca    *authority

	running []*process
	ports   map[string]uint16 // of clients' sidecars, by pod
}

// New makes a half whose Envoys are started from the binary.
func New(envoy string) (*Half, error) {
	quiet()
	dir, err := os.MkdirTemp("", "istio-half")
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	return &Half{envoy: envoy, dir: dir, ca: ca}, nil
}

// Load has istiod generate the scenario and starts its Envoys, in place of those of the
// scenario before.
func (h *Half) Load(s *world.Scenario) (err error) {
	defer func() {
		if f, ok := recover().(failed); ok {
			err = fmt.Errorf("istiod: %w", f)
		}
	}()
	h.stop()
	h.ports = map[string]uint16{}
	t := &failer{}
	defer t.close()
	srv, err := serve(t, s)
	if err != nil {
		return err
	}
	var all []sidecar
	for _, q := range s.Requests {
		p := s.World.Pod(q.Source)
		if !s.World.Meshed(p) || h.ports[p.Key()] != 0 {
			continue
		}
		port := uint16(wire.FirstSidecar + len(h.ports))
		h.ports[p.Key()] = port
		sc := generate(srv, s.World, p).outbound(port)
		if sc.secrets, err = h.ca.secrets(p); err != nil {
			return err
		}
		all = append(all, sc)
	}
	inbound := map[netip.Addr]uint16{}
	if s.Sidecars {
		var servers sidecar
		var pods []*world.Pod
		for _, p := range s.World.Pods {
			if !s.World.Meshed(p) || !serves(s.World, p) {
				continue
			}
			port := uint16(wire.FirstInbound + len(pods))
			inbound[p.Addr] = port
			servers.inbound(generate(srv, s.World, p), port)
			pods = append(pods, p)
		}
		if servers.secrets, err = h.ca.secrets(pods...); err != nil {
			return err
		}
		all = append(all, servers)
	}
	if err := wire.Cluster(balanced(s.World), inbound); err != nil {
		return err
	}
	for i := range all {
		p, err := h.start(i, &all[i])
		if err != nil {
			return err
		}
		h.running = append(h.running, p)
	}
	for _, p := range h.running {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}

func serves(w *world.World, p *world.Pod) bool {
	for _, s := range w.Services {
		for _, e := range w.Endpoints(s) {
			if e == p {
				return true
			}
		}
	}
	return false
}

func balanced(w *world.World) []wire.Balanced {
	var out []wire.Balanced
	for _, s := range w.Services {
		if !s.Addr.IsValid() {
			continue
		}
		for _, p := range s.Ports {
			b := wire.Balanced{At: netip.AddrPortFrom(s.Addr, p.Port)}
			for _, e := range w.Endpoints(s) {
				b.Pod = append(b.Pod, netip.AddrPortFrom(e.Addr, p.Target))
			}
			out = append(out, b)
		}
	}
	return out
}

// Way is how the pod's connections go: through its sidecar, or straight to the server's.
func (h *Half) Way(p *world.Pod, dst netip.AddrPort) wire.Way {
	if port := h.ports[p.Key()]; port != 0 {
		return wire.Way{To: dst, Mark: wire.Redirect(port)}
	}
	return wire.Way{To: dst, Mark: wire.Inbound}
}

// Judge is nil: sidecars judge.
func (h *Half) Judge() func(from, to netip.AddrPort) bool { return nil }

// Alive is an error if one of the Envoys has ended.
func (h *Half) Alive() error {
	for _, p := range h.running {
		select {
		case <-p.ended:
			return fmt.Errorf("a sidecar's Envoy ended (%v): %s", p.cmd.ProcessState, p.log.String())
		default:
		}
	}
	return nil
}

// Close ends it.
func (h *Half) Close() {
	h.stop()
	os.RemoveAll(h.dir)
}

func (h *Half) stop() {
	for _, p := range h.running {
		p.cmd.Process.Kill()
	}
	for _, p := range h.running {
		<-p.ended
	}
	h.running = nil
}

// process is a running Envoy.
type process struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
	port  uint16 // of one of its listeners
}

func (h *Half) start(n int, s *sidecar) (*process, error) {
	b := s.bootstrap()
	data, err := proto.Marshal(b)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(h.dir, fmt.Sprintf("envoy-%d.pb", n))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	p := &process{ended: make(chan struct{})}
	for _, l := range s.listeners {
		if sa := l.GetAddress().GetSocketAddress(); sa.GetAddress() == "127.0.0.1" && l.GetBindToPort() == nil {
			p.port = uint16(sa.GetPortValue())
		}
	}
	p.cmd = exec.Command(h.envoy, "-c", file, "--log-level", "error", "--disable-hot-restart", "--concurrency", "1")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.cmd.Wait(); close(p.ended) }()
	return p, nil
}

// ready waits until it listens.
func (p *process) ready() error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		select {
		case <-p.ended:
			return fmt.Errorf("Envoy does not take what istiod generates: %s", p.log.String())
		default:
		}
		// Not by a connection: what dials the listener itself is passed on to it again,
		// for ever.
		if listens, err := wire.Listens(p.port); err != nil || listens {
			return err
		}
	}
	return fmt.Errorf("Envoy did not get ready: %s", p.log.String())
}
