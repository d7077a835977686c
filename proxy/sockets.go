// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/xds/serve"
)

// sockets serve the Envoys of this proxy, each on those of its bank: another bank's may
// be another proxy's.
type sockets struct {
	paths Paths
	uid   int
	// whole is closed when there is a configuration. Until then there is no socket for
	// it: Envoy keeps what it has and tries again.
	whole <-chan struct{}
	ads   *grpc.Server
	names *grpc.Server // whom an authority means

	mu     sync.Mutex
	closed bool
	banks  [Banks]struct {
		open       bool
		names, xds net.Listener
	}
	serving sync.WaitGroup
	failed  []error
}

func (p *proxy) newSockets() *sockets {
	s := &sockets{paths: p.paths, uid: p.opts.UID, whole: p.ready,
		ads: grpc.NewServer(serve.GRPCOptions()...), names: grpc.NewServer()}
	p.server.Register(s.ads)
	p.authority.Register(s.names)
	return s
}

// open begins to serve a bank.
func (s *sockets) open(bank int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.banks[bank]
	b.open = true
	if b.names == nil {
		l, err := s.listen(s.names, s.paths.Authority[bank])
		if err != nil {
			return err
		}
		b.names = l
	}
	select {
	case <-s.whole:
	default:
		return nil
	}
	if b.xds == nil {
		l, err := s.listen(s.ads, s.paths.XDS[bank])
		if err != nil {
			return err
		}
		b.xds = l
	}
	return nil
}

// begin serves the banks that are open, now that there is something to serve.
func (s *sockets) begin() error {
	var errs []error
	for bank := range s.banks {
		s.mu.Lock()
		open := s.banks[bank].open
		s.mu.Unlock()
		if open {
			errs = append(errs, s.open(bank))
		}
	}
	return errors.Join(errs...)
}

func (s *sockets) listen(g *grpc.Server, path string) (net.Listener, error) {
	if s.closed {
		return nil, errors.New("the proxy stops")
	}
	l, err := Listen(path, s.uid)
	if err != nil {
		return nil, err
	}
	s.serving.Go(func() {
		err := g.Serve(l)
		if err == nil || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = append(s.failed, fmt.Errorf("serve %s: %w", path, err))
	})
	return l, nil
}

// shut ends a bank's service, before the bank is given back.
func (s *sockets) shut(bank int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.banks[bank]
	for _, l := range []net.Listener{b.names, b.xds} {
		if l != nil {
			l.Close()
		}
	}
	b.open, b.names, b.xds = false, nil, nil
	for _, path := range []string{s.paths.Authority[bank], s.paths.XDS[bank], s.paths.Admin[bank]} {
		os.Remove(path) // one that is left is replaced by who uses the bank next
	}
}

// run serves until the context ends.
func (s *sockets) run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ads.Stop()
	s.names.Stop()
	s.serving.Wait()
	return errors.Join(s.failed...)
}
