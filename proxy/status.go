// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds/serve"
)

// Status is a picture of a node proxy.
type Status struct {
	Node    string `json:"node"`
	Version string `json:"version"` // of the proxy, which starts Envoy
	// Envoy is the one that serves.
	Envoy EnvoyStatus `json:"envoy"`
	// Generations are all Envoys that run, by bank.
	Generations []Generation `json:"generations"`
	// Replacement is the one under way, or the last of this process; nil: none.
	Replacement *Replacement `json:"replacement,omitempty"`
	Feed        FeedStatus   `json:"feed"`
	// InCharge: this proxy tells the kernel where new connections go. Another may run
	// beside it for a while.
	InCharge bool `json:"inCharge"`
	// Served is what Envoy is served.
	Served serve.Status `json:"served"`
	// Authority counts the requests that Envoys had looked up by their host.
	Authority authority.Counters `json:"authority"`
	// InUse is how many route tables Envoys have asked for; Evicted, how many were
	// taken from them again because nobody used them.
	InUse   int    `json:"inUse"`
	Evicted uint64 `json:"evicted"`
	// StateError says why the state that an earlier process saved was not used.
	StateError string `json:"stateError,omitempty"`
	// SaveError says why the state is not saved, "" if it is: a proxy that is started now
	// would begin with an older one. It is tried again.
	SaveError string `json:"saveError,omitempty"`
}

// EnvoyStatus is the state of the Envoy that serves. While it is not Connected,
// changes are stored and acknowledged, but nobody has judged them.
type EnvoyStatus struct {
	PID       int    `json:"pid,omitempty"` // 0: none runs
	Version   string `json:"version,omitempty"`
	State     string `json:"state"` // Envoy's own word ("LIVE"), "stopped" or "silent"
	Connected bool   `json:"connected"`
	Adopted   bool   `json:"adopted,omitempty"` // started by an earlier proxy
	Starts    int    `json:"starts"`            // Envoys that this process has had
	Restarts  int    `json:"restarts"`          // of these, for one that ended unasked while it served
	// LastEnd is the last unasked end of an Envoy, whatever it was for; nil: there was none.
	LastEnd *EnvoyEnd `json:"lastEnd,omitempty"`
}

// Generation is an Envoy that runs.
type Generation struct {
	Bank    int       `json:"bank"`
	PID     int       `json:"pid"`
	Role    Role      `json:"role"`
	Since   time.Time `json:"since"` // when it got the role
	Ready   bool      `json:"ready"`
	Waits   string    `json:"waits,omitempty"` // for what, if it is not ready
	Build   string    `json:"build"`           // hash of the binary and of all that it was given
	Adopted bool      `json:"adopted,omitempty"`
	Version string    `json:"version,omitempty"`
	State   string    `json:"state"` // Envoy's own word, or "silent"
	// Trouble is what is wrong with it: it is stopped, does not answer, or has nearly used
	// up its descriptors, connections or memory. It is at most some seconds old.
	Trouble string `json:"trouble,omitempty"`
	// Connections of clients that are open, and how many there may be; 0: any number.
	Connections     uint64 `json:"connections"`
	MostConnections uint64 `json:"mostConnections,omitempty"`
	// Descriptors that are open, and how many there may be; 0: any number.
	Descriptors     uint64 `json:"descriptors,omitempty"`
	DescriptorLimit uint64 `json:"descriptorLimit,omitempty"`
	// Memory is resident, MemoryLimit its cgroup's, which others use too; 0: none. In bytes.
	Memory      uint64 `json:"memory,omitempty"`
	MemoryLimit uint64 `json:"memoryLimit,omitempty"`
}

// FeedStatus is the state of the stream to the agent.
type FeedStatus struct {
	Connected bool   `json:"connected"`
	Synced    bool   `json:"synced"` // the agent was heard completely, once
	Error     string `json:"error,omitempty"`
}

// statusLimit is how long an Envoy has to answer for a status.
const statusLimit = time.Second

func (p *proxy) status(ctx context.Context) Status {
	out := Status{Node: p.opts.Node, Version: version.String(), InCharge: p.charge.held(), Served: p.server.Status(), Authority: p.authority.Counters(), InUse: len(p.server.InUse()), Evicted: p.evicted.Load()}
	if p.stateErr != nil {
		out.StateError = p.stateErr.Error()
	}
	if err := p.saveErr.Load(); err != nil {
		out.SaveError = (*err).Error()
	}
	p.envoys.status(ctx, &out)
	out.Envoy.Connected = out.Envoy.Connected && slices.Contains(out.Served.Clients, p.opts.Node)
	p.feed.mu.Lock()
	out.Feed = FeedStatus{Connected: p.feed.session != nil, Synced: p.feed.wasSync}
	if p.feed.err != nil {
		out.Feed.Error = p.feed.err.Error()
	}
	p.feed.mu.Unlock()
	return out
}

// status adds what is known of Envoys.
func (s *supervisor) status(ctx context.Context, out *Status) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	var admins []*admin
	out.Generations = []Generation{}
	s.mu.Lock()
	out.Envoy = EnvoyStatus{State: "stopped", Starts: s.starts, Restarts: s.restarts, LastEnd: s.lastEnd}
	serves := s.active
	for _, g := range s.gens {
		if g == nil {
			continue
		}
		admins = append(admins, g.admin)
		out.Generations = append(out.Generations, Generation{
			Bank: g.bank, PID: g.pid, Role: g.role, Since: g.since, Ready: g.ready, Waits: g.waits,
			Build: g.build.hash, Adopted: g.adopted, State: "silent", Trouble: g.trouble,
			MostConnections: g.uses.mostConnections, Descriptors: g.uses.files, DescriptorLimit: g.uses.filesLimit,
			Memory: g.uses.memory, MemoryLimit: g.uses.memoryLimit,
		})
	}
	if s.last.State != "" {
		last := s.last
		out.Replacement = &last
	}
	s.mu.Unlock()

	connected := make([]bool, len(admins))
	var asked sync.WaitGroup
	for i, a := range admins {
		g := &out.Generations[i]
		asked.Go(func() {
			info, err := a.info(ctx)
			if err != nil {
				// One whose socket somebody has removed cannot be asked. Its stream tells:
				// the proxy's clients are looked at, too.
				_, gone := os.Lstat(s.paths.Admin[g.Bank])
				connected[i] = errors.Is(gone, fs.ErrNotExist)
				return
			}
			g.Version, g.State = info.Version, info.State
			g.Connections, _ = a.connections(ctx) // silent for once: 0
			stats, err := a.stats(ctx, `^control_plane\.connected_state$`)
			connected[i] = err == nil && stats["control_plane.connected_state"] > 0
		})
	}
	asked.Wait()
	for i, g := range out.Generations {
		if g.Bank == serves {
			e := &out.Envoy
			e.PID, e.Version, e.State, e.Adopted, e.Connected = g.PID, g.Version, g.State, g.Adopted, connected[i]
		}
	}
}

// readiness is the answer to a probe.
func (p *proxy) readiness(ctx context.Context) Readiness {
	p.charge.mu.Lock()
	out := Readiness{InCharge: p.charge.lock != nil}
	newcomer, waits := !p.charge.had, p.charge.waits
	p.charge.mu.Unlock()
	select {
	case <-p.ready:
	default:
		out.Why = "no configuration yet: it waits for the agent"
		return out
	}
	_, connected := p.feed.current()
	lacks, a := p.envoys.lacks(connected)
	switch out.Bank = p.envoys.bank(); {
	case lacks != "":
		out.Why = lacks
	case newcomer && waits != "":
		out.Why = waits
	case newcomer:
		out.Why = "it is about to take over from the proxy in charge"
	default:
		ctx, cancel := context.WithTimeout(ctx, statusLimit)
		defer cancel()
		if info, err := a.info(ctx); err != nil {
			out.Why = err.Error()
		} else if info.State != "LIVE" {
			out.Why = "envoy is " + info.State
		} else if why := p.besides(ctx); why != "" {
			out.Why = why
		} else if out.Ready = true; out.InCharge {
			out.Why = fmt.Sprintf("envoy takes new connections, in bank %d", out.Bank)
		} else {
			out.Why = fmt.Sprintf("another proxy has taken over; envoy goes on with its connections, in bank %d", out.Bank)
		}
	}
	return out
}

func (p *proxy) besides(ctx context.Context) string {
	if p.opts.beside == nil {
		return ""
	}
	return p.opts.beside(ctx)
}

// metrics are those of the Envoy that serves: counters that were never used are left out,
// as they are many.
func (s *supervisor) metrics(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	g := s.gens[s.active]
	s.mu.Unlock()
	if g == nil {
		return nil, errors.New("envoy does not run")
	}
	return g.admin.do(ctx, http.MethodGet, "/stats/prometheus?usedonly")
}

func (s *supervisor) bank() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// lacks is what keeps the Envoy that serves, or is to, from being ready; "": nothing,
// and its admin socket.
func (s *supervisor) lacks(agent bool) (string, *admin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gens[s.active]
	switch {
	case s.closed:
		return "it is about to end", nil
	case s.homeless:
		return "another proxy has not ended yet and uses the only bank that is free", nil
	case g == nil:
		return "envoy does not run", nil
	case !g.ready:
		return cmp.Or(g.waits, "envoy gets ready"), nil
	case s.charge && s.untold && !errors.Is(s.flipErr, fs.ErrNotExist):
		return s.flipErr.Error(), nil
	case s.charge && s.untold && agent:
		return "an agent runs, but its maps are not found: the BPF file system must be mounted, and --bpffs be that of the agent", nil
	}
	return "", g.admin
}
