// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"
)

// watchFolder makes anew what somebody has removed from the run folder, or the folder with
// it: what is connected stays connected meanwhile, so that Envoy serves and takes changes,
// but nobody who comes anew would find this proxy. An Envoy's admin socket it cannot make;
// guard tells of that.
func (p *proxy) watchFolder(ctx context.Context, all *sync.WaitGroup) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, err := os.Lstat(p.paths.Own); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !failed {
			p.log.Error("the run folder, or the sockets in it, were removed: envoy serves on, and takes changes; all is made anew, but for envoy's admin socket, which comes with the next one (fairlead proxy replace --force)", "folder", p.opts.RunDir)
		}
		err := p.restoreFolder(ctx, all)
		if err != nil && !failed {
			p.log.Error("run folder not made anew", "error", err)
		}
		failed = err != nil
	}
}

func (p *proxy) restoreFolder(ctx context.Context, all *sync.WaitGroup) error {
	if err := prepare(p.opts.RunDir, p.paths, p.opts.UID); err != nil {
		return err
	}
	if err := errors.Join(p.charge.renew(), p.envoys.relock(), p.sockets.renew()); err != nil {
		return err
	}
	control, err := Listen(p.paths.Own, -1) // last: it says that all is there
	if err != nil {
		return err
	}
	all.Go(func() {
		if err := p.serveControl(ctx, control); err != nil {
			p.log.Error("control socket not served", "error", err)
		}
	})
	p.markDirty()
	return nil
}

// renew takes the charge by files that are new: those by which it was held are nobody's any
// more. Without charge there is nothing to do.
func (c *charge) renew() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	if _, err := os.Lstat(c.paths.Lock); err == nil {
		return c.link() // just sockets were removed
	}
	f, err := tryLock(c.paths.Lock)
	if err != nil {
		return err
	}
	c.lock.Close()
	c.lock = f
	return c.link()
}

// relock takes the banks by files that are new.
func (s *supervisor) relock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for bank, old := range s.locks {
		if old == nil {
			continue
		}
		if _, err := os.Lstat(s.paths.BankLock[bank]); err == nil {
			continue
		}
		f, err := tryLock(s.paths.BankLock[bank])
		if err != nil {
			return err
		}
		old.Close()
		s.locks[bank] = f
	}
	s.save()
	return nil
}

// renew listens anew where sockets were removed.
func (s *sockets) renew() error {
	s.mu.Lock()
	var open []int
	for bank := range s.banks {
		b := &s.banks[bank]
		if b.names != nil {
			b.names.Close()
		}
		if b.xds != nil {
			b.xds.Close()
		}
		if b.names, b.xds = nil, nil; b.open {
			open = append(open, bank)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, bank := range open {
		errs = append(errs, s.open(bank))
	}
	return errors.Join(errs...)
}
