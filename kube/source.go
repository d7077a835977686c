// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Changes are handed out when nothing more has come for settle, or after settleMax of
// steady changes.
const (
	settle    = 20 * time.Millisecond
	settleMax = 500 * time.Millisecond
)

// Options of New.
type Options struct {
	Config   *Config
	Registry *objects.Registry // what somebody reads
	// Statuses are the kinds whose status is handed out beside their objects, see
	// Update.Stored.
	Statuses []objects.Kind
	Log      *slog.Logger
}

// Source watches what an API server has of the kinds that somebody reads. Its methods are
// safe for concurrent use.
type Source struct {
	cfg       *rest.Config
	http      *http.Client
	discovery track
	client    *discovery.DiscoveryClient
	registry  *objects.Registry
	statuses  []objects.Kind
	log       *slog.Logger

	dirty chan struct{} // there is something to hand out
	again chan struct{} // what is served may have changed
	group sync.WaitGroup

	mu    sync.Mutex
	kinds map[objects.Kind]*kindWatch
	// have is all that was read so far, by key, and what is told about kinds, by the kind's
	// name; sum is what their digests come to.
	have       map[objects.Kind]map[string][16]byte
	sum        [16]byte
	pending    map[objects.Ref]objects.Edit
	stored     map[objects.Ref]*Stored // as pending, of what is beside the objects
	unreadable map[objects.Kind]unreadable
	absent     map[objects.Kind]int // looks that did not find a kind which is watched
	crds       crds
	beats      map[string]*heartbeat // by the name of the node
	deaf       string                // why what is not heard does not count; "": it does
	swept      time.Time
	looked     bool // what is served is known
	whole      bool
	given      bool   // it was handed out once
	hopeless   func() // called where Read is not to wait; nil: it is

	told string // what was logged of its health last; Run's own
}

// unreadable is a kind of which no version is read.
type unreadable struct {
	since time.Time
	text  string
}

// Update is what changed.
type Update struct {
	// Edits since the last update, those of the first being all that there is; sorted.
	Edits []objects.Edit
	// Revision names all that there is now, however it came to be so.
	Revision string
	// Stored is what changed of the objects of Options.Statuses beside that; nil for one
	// that is gone. Generations are those of the objects as they were handed out.
	Stored map[objects.Ref]*Stored
}

// New returns a source that does nothing before Run.
func New(o Options) (*Source, error) {
	s := &Source{cfg: Prepare(o.Config), registry: o.Registry, statuses: o.Statuses, log: o.Log, dirty: make(chan struct{}, 1), again: make(chan struct{}, 1),
		kinds: map[objects.Kind]*kindWatch{}, have: map[objects.Kind]map[string][16]byte{}, pending: map[objects.Ref]objects.Edit{},
		stored: map[objects.Ref]*Stored{}, unreadable: map[objects.Kind]unreadable{}, absent: map[objects.Kind]int{}, beats: map[string]*heartbeat{}}
	var err error
	if s.http, err = rest.HTTPClientFor(s.cfg); err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", s.cfg.Host, err)
	}
	if s.client, err = discovery.NewDiscoveryClientForConfigAndClient(s.cfg, s.http); err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", s.cfg.Host, err)
	}
	s.discovery.changed = s.judge
	s.crds.track.changed = s.judge
	return s, nil
}

// String is the API server's address.
func (s *Source) String() string { return s.cfg.Host }

// Run watches until the context ends, and calls changed whenever Take has something: first
// when everything was read, then after changes. It fails only if it cannot begin; a server
// that is away is waited for.
func (s *Source) Run(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		s.group.Wait()
	}()
	s.watchCRDs(ctx)
	s.group.Go(func() { s.lookOut(ctx) })
	var quiet, late <-chan time.Time
	every := time.NewTicker(tellEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-every.C:
			s.sweep(now)
			s.tell(now)
		case <-s.dirty:
			quiet = time.After(settle)
			if late == nil {
				late = time.After(settleMax)
			}
		case <-quiet:
			quiet, late = nil, nil
			changed()
		case <-late:
			quiet, late = nil, nil
			changed()
		}
	}
}

// Take hands out what changed since it was called last. ok is false if that is nothing,
// and before everything was read once.
func (s *Source) Take() (u Update, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.whole || s.given && len(s.pending) == 0 && len(s.stored) == 0 {
		return Update{}, false
	}
	s.given = true
	u.Edits = slices.SortedFunc(maps.Values(s.pending), func(a, b objects.Edit) int { return objects.CompareRefs(a.Ref, b.Ref) })
	u.Revision = hex.EncodeToString(s.sum[:])
	s.pending = map[objects.Ref]objects.Edit{} // one that was large once would be looked through for ever
	u.Stored, s.stored = s.stored, map[objects.Ref]*Stored{}
	return u, true
}

// put notes an object's new version, or that it is gone. It is called with mu held.
func (s *Source) put(e objects.Edit) {
	k, key := e.Ref.Kind, e.Ref.Namespace+"/"+e.Ref.Name
	old, had := s.have[k][key]
	if e.New == nil && len(e.Diagnostics) == 0 {
		if !had {
			return
		}
		delete(s.have[k], key)
		s.pending[e.Ref] = e
	} else {
		digest := e.Digest()
		if had && old == digest {
			return
		}
		if s.have[k] == nil {
			s.have[k] = map[string][16]byte{}
		}
		s.have[k][key] = digest
		s.pending[e.Ref] = e
		subtle.XORBytes(s.sum[:], s.sum[:], digest[:])
	}
	if had {
		subtle.XORBytes(s.sum[:], s.sum[:], old[:])
	}
	if s.whole {
		s.wake()
	}
}

func (s *Source) wake() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// lookAgain has what is served looked at again.
func (s *Source) lookAgain() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// settled hands everything out for the first time if all of it was read that can be. A
// kind that may not be read is left out, and told of, if it cannot forbid anything; for
// one that can, everything waits. It is called with mu held.
func (s *Source) settled() {
	if s.whole || !s.looked {
		return
	}
	for k := range s.unreadable {
		if objects.Guards(k) {
			return
		}
	}
	for k, w := range s.kinds {
		if !w.synced && (objects.Guards(k) || !w.track.forbidden()) {
			return
		}
	}
	s.whole = true
	s.log.Info("the API server's objects were read", "server", s.cfg.Host, "kinds", len(s.kinds))
	s.wake()
}

// judge looks whether what has failed, or is well again, changes what is waited for.
func (s *Source) judge() {
	lasting := slices.ContainsFunc(s.Health().Problems, Problem.lasts)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbid()
	s.settled()
	if s.hopeless != nil && lasting {
		s.hopeless()
	}
}

// tellEvery is how often it is looked for something to log, and tellAfter how long that
// must have lasted: a server has its moments.
const (
	tellEvery = time.Second
	tellAfter = 3 * time.Second
)

// tell logs what is wrong, once for as long as it is the same, and that nothing is.
func (s *Source) tell(now time.Time) {
	var problems []string
	for _, p := range s.Health().Problems {
		if now.Sub(p.Since) >= tellAfter {
			problems = append(problems, p.String())
		}
	}
	text := strings.Join(problems, "; ")
	if text == s.told {
		return
	}
	s.told = text
	if text == "" {
		s.log.Info("the API server answers", "server", s.cfg.Host)
	}
	for _, p := range problems {
		s.log.Warn("API server", "server", s.cfg.Host, "problem", p)
	}
}

// forbid keeps the diagnostics of kinds that cannot be read. It is called with mu held.
func (s *Source) forbid() {
	for k, w := range s.kinds {
		var said []model.Diagnostic
		if !w.synced && w.track.forbidden() {
			said = notRead(k, "the API server does not let it be read (403): its objects are not used", "allow list and watch of it by a ClusterRole")
		}
		s.put(objects.Edit{Ref: objects.Ref{Kind: k}, Diagnostics: said})
	}
	for k, p := range s.unreadable {
		s.put(objects.Edit{Ref: objects.Ref{Kind: k}, Diagnostics: notRead(k, p.text, "serve one that is read too")})
	}
}

func notRead(k objects.Kind, msg, advice string) []model.Diagnostic {
	effect := model.Degrades
	if objects.Guards(k) {
		effect = model.Widens
	}
	return []model.Diagnostic{{Source: model.Source{Group: k.Group, Kind: k.Kind}, Code: "kind-not-read", Effect: effect, Outcome: model.Refused,
		Message: k.String() + ": " + msg, Advice: advice}}
}

// Read reads everything once. It fails with what is wrong with the API server, at once if
// that is nothing which passes by itself, or else if it is not done when the context ends.
func Read(ctx context.Context, o Options) ([]objects.Edit, error) {
	u, err := readOnce(ctx, o)
	return u.Edits, err
}

// ReadStored is Read of what is beside the objects of Options.Statuses.
func ReadStored(ctx context.Context, o Options) (map[objects.Ref]*Stored, error) {
	u, err := readOnce(ctx, o)
	return u.Stored, err
}

func readOnce(ctx context.Context, o Options) (Update, error) {
	s, err := New(o)
	if err != nil {
		return Update{}, err
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	s.hopeless = cancel
	var u Update
	var ok bool
	err = s.Run(running, func() {
		if u, ok = s.Take(); ok {
			cancel()
		}
	})
	if err == nil && !ok {
		err = errors.New(s.Health().once())
	}
	if err != nil {
		return Update{}, fmt.Errorf("read the objects of %s: %w", s, err)
	}
	return u, nil
}
