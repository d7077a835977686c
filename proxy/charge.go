// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

const (
	chargePoll = 100 * time.Millisecond
	// A proxy that gave its charge to another does not take it back for this long.
	handOverTime = time.Second
	// Another proxy on the node has this long to answer.
	peerLimit = time.Second
)

// charge is whether this proxy is the one in charge of the node: the one that tells the
// kernel where new connections go, that the agent asks, and that saves the state. The
// others feed their Envoys, and keep the connections that these have.
//
//	newcomer ──ready──► asks the one in charge ──► in charge ──asked──► relieved
//	   │                                              ▲                    │
//	   └────────── nobody is in charge any more ──────┴────────────────────┘
//
// Who is in charge has the lock. The kernel takes it from a process that ends, so there
// is no way to die in charge.
type charge struct {
	paths Paths

	mu    sync.Mutex
	lock  *os.File  // nil: another proxy is in charge
	had   bool      // ever
	gave  time.Time // when it was given to another
	waits string    // why a newcomer does not ask for it yet

	refusing sync.Mutex
	refuse   map[resource]serve.Rejection // what no Envoy of this proxy takes
}

// InCharge names the proxy of a run folder that is in charge, as its feed does to the
// agent; "": none is.
func InCharge(runDir string) string {
	name, err := os.Readlink(PathsIn(runDir).Control)
	if err != nil {
		return ""
	}
	return name
}

// FeedName is a proxy's name, by what its feed says of itself.
func FeedName(n *core.Node) string { return n.GetUserAgentName() }

// held reports whether this proxy is in charge.
func (c *charge) held() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lock != nil
}

// take makes this proxy the one in charge, if none is.
func (c *charge) take() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock != nil {
		return true, nil
	}
	f, err := tryLock(c.paths.Lock)
	if errors.Is(err, errHeld) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.link(); err != nil {
		f.Close()
		return false, fmt.Errorf("take charge: %w", err)
	}
	c.lock, c.had, c.waits = f, true, ""
	return true, nil
}

// link leads who asks to this proxy, in one step: there is no moment in which nobody can be
// asked.
func (c *charge) link() error {
	next := c.paths.Control + ".new"
	os.Remove(next)
	if err := os.Symlink(filepath.Base(c.paths.Own), next); err != nil {
		return err
	}
	return os.Rename(next, c.paths.Control)
}

// give lets another proxy take charge.
func (c *charge) give() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lock.Close()
	c.lock, c.gave = nil, time.Now()
}

// end gives the charge back for good.
func (c *charge) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return
	}
	os.Remove(c.paths.Control)
	c.lock.Close()
	c.lock = nil
}

// refused notes what no Envoy of this proxy takes.
func (c *charge) refused(r serve.Rejection) {
	c.refusing.Lock()
	defer c.refusing.Unlock()
	if c.refuse == nil {
		c.refuse = map[resource]serve.Rejection{}
	}
	c.refuse[resource{r.Type, r.Name}] = r
}

func (c *charge) wait(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = why
}

// pursue takes charge when nobody has it, and asks for it once, as a newcomer whose
// Envoy is ready.
func (p *proxy) pursue(ctx context.Context) {
	t := time.NewTicker(chargePoll)
	defer t.Stop()
	for {
		if err := p.pursueOnce(ctx); err != nil && ctx.Err() == nil {
			p.charge.wait(err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (p *proxy) pursueOnce(ctx context.Context) error {
	c := &p.charge
	c.mu.Lock()
	held, newcomer, just := c.lock != nil, !c.had, time.Since(c.gave) < handOverTime
	c.mu.Unlock()
	if held || just {
		return nil
	}
	if taken, err := c.take(); err != nil || taken {
		if taken {
			p.takeCharge("nobody was in charge")
		}
		return err
	}
	if !newcomer || !p.envoys.isReady() {
		return nil
	}
	if err := p.fit(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	if err := call(limited, p.paths.Control, http.MethodPost, "/hand-over", &struct{}{}); err != nil {
		return fmt.Errorf("the proxy in charge does not hand over: %w", err)
	}
	for {
		if taken, err := c.take(); err != nil || taken {
			if taken {
				p.takeCharge("the proxy before handed over")
			}
			return err
		}
		select {
		case <-limited.Done():
			return nil // another one was faster
		case <-time.After(lockPoll):
		}
	}
}

func (p *proxy) takeCharge(why string) {
	p.log.Info("this proxy is in charge", "why", why)
	p.envoys.takeCharge()
	p.markDirty()
}

// handOver lets another proxy take charge. What there is is saved first.
func (p *proxy) handOver() error {
	p.saving.Lock()
	defer p.saving.Unlock()
	if !p.charge.held() {
		return errors.New("this proxy is not in charge")
	}
	p.envoys.relieve()
	p.saveState()
	p.charge.give()
	p.log.Info("another proxy is to take charge")
	return nil
}

// leave hands over to a proxy that was relieved, if there is one, before this one stops:
// a newcomer asks.
func (p *proxy) leave() {
	if !p.charge.held() {
		return
	}
	all, err := filepath.Glob(filepath.Join(p.opts.RunDir, "proxy-*.sock"))
	if err != nil {
		return
	}
	for _, socket := range all {
		if socket == p.paths.Own {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), peerLimit)
		var r Readiness
		err := call(ctx, socket, http.MethodGet, "/ready", &r)
		cancel()
		if err == nil && r.Ready {
			if err := p.handOver(); err != nil {
				p.log.Warn("not handed over", "error", err)
			}
			return
		}
	}
}

// fit is why a newcomer must not take charge yet; nil: it may. Its Envoy is ready; here
// it is asked whether it has what the one in charge has.
func (p *proxy) fit(ctx context.Context) error {
	current, connected := p.feed.current()
	if connected && !current {
		return errors.New("the agent has not sent everything yet")
	}
	p.charge.refusing.Lock()
	refuse := maps.Clone(p.charge.refuse)
	p.charge.refusing.Unlock()
	if connected && len(refuse) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	var theirs versions
	if err := call(ctx, p.paths.Control, http.MethodGet, "/versions", &theirs); err != nil {
		return nil // it is about to end, and can tell nothing
	}
	var worse []serve.Rejection
	for k, r := range refuse {
		if theirs[k.typ][k.name] == r.Version {
			worse = append(worse, r)
		}
	}
	slices.SortFunc(worse, func(a, b serve.Rejection) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
	})
	switch {
	case len(worse) > 0:
		return &worseError{worse}
	case connected:
		return nil
	}
	return p.catchUp(ctx, theirs)
}

// versions are those of the resources that a proxy serves, by type and name.
type versions map[string]map[string]string

func versionsOf(all []xds.Resource) versions {
	out := versions{}
	for _, r := range all {
		if out[r.Type] == nil {
			out[r.Type] = map[string]string{}
		}
		out[r.Type][r.Name] = r.Version
	}
	return out
}

// catchUp takes what the proxy in charge has, while there is no agent that would say it.
func (p *proxy) catchUp(ctx context.Context, theirs versions) error {
	ours := versionsOf(p.server.Resources())
	if maps.EqualFunc(ours, theirs, maps.Equal) {
		return nil
	}
	st, err := readPeerState(ctx, p.paths.Control)
	if err != nil {
		return nil // as above
	}
	theirs = versionsOf(st.resources)
	var changes []serve.Change
	for _, r := range st.resources {
		if ours[r.Type][r.Name] != r.Version {
			changes = append(changes, serve.Set(r))
		}
	}
	for typ, names := range ours {
		for name := range names {
			if _, there := theirs[typ][name]; !there {
				changes = append(changes, serve.Change{Type: typ, Name: name})
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	named, err := p.names.Take(changes)
	if err != nil {
		p.log.Warn("names not read", "error", err)
	}
	out, err := p.server.Push(ctx, changes)
	if err != nil {
		return fmt.Errorf("the agent is away, and not all is there that the proxy in charge has: %w", err)
	}
	named(out)
	return nil
}

// readPeerState asks a proxy for what it serves.
func readPeerState(ctx context.Context, socket string) (state, error) {
	body, err := fetch(ctx, socket, http.MethodGet, "/state")
	if err != nil {
		return state{}, err
	}
	return parseState(body, false)
}
