// SPDX-License-Identifier: Apache-2.0

// Package lead has one of several processes lead, by a Lease of Kubernetes.
//
// Of two installations in one cluster, each with a Lease in a namespace of its own, the
// one whose Lease is older leads; the other says so and does not.
package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"

	"fairlead.io/fairlead/kube"
)

// Times are those of an election.
type Times struct {
	Lease time.Duration // after which a leader that is silent is one no more
	Renew time.Duration // after which a leader that cannot renew its Lease stops; less than Lease
	Retry time.Duration // between two tries
}

// DefaultTimes bound a takeover from a leader that was killed to about 17 s.
var DefaultTimes = Times{Lease: 15 * time.Second, Renew: 10 * time.Second, Retry: 2 * time.Second}

// Options of Run and Retire.
type Options struct {
	Config    *kube.Config
	Namespace string
	Name      string // of the Lease
	Identity  string // of this process, unique among all
	Labels    map[string]string
	// Annotations are those of whoever holds the Lease.
	Annotations map[string]string
	Times       Times
	Log         *slog.Logger
}

// ErrRetired is of a process that has been told to stop for good: see Retire.
var ErrRetired = errors.New("retired")

// State is how it stands with an election.
type State struct {
	Leading bool   `json:"leading"`
	Holder  string `json:"holder,omitempty"`  // of the Lease
	Problem string `json:"problem,omitempty"` // why nobody of this installation may lead
}

// Election is one process' part in an election.
type Election struct {
	o      Options
	leases coordination.CoordinationV1Interface
	lock   *lock

	mu    sync.Mutex
	state State
}

// New returns an election in which nothing happens before Run.
func New(o Options) (*Election, error) {
	cfg, client, err := reach(o)
	if err != nil {
		return nil, err
	}
	leases, err := coordination.NewForConfigAndClient(cfg, client)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	e := &Election{o: o, leases: leases, lock: newLock(o, leases)}
	e.lock.failed = e.failed
	return e, nil
}

func reach(o Options) (*rest.Config, *http.Client, error) {
	cfg := kube.Prepare(o.Config)
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	// A request that hangs must not make a leader of one whose time is over.
	client.Timeout = o.Times.Renew / 2
	return cfg, client, nil
}

// State tells how it stands.
func (e *Election) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.Holder = e.lock.holder()
	return s
}

// Run stands for election until the context ends, or fails with ErrRetired. While this
// process leads, lead runs; its context ends when it leads no more. The Lease is given
// back when lead has returned.
func (e *Election) Run(ctx context.Context, lead func(context.Context)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.lock.retired = func() { cancel(ErrRetired) }
	for ctx.Err() == nil {
		if err := e.term(ctx, lead); err != nil {
			return err
		}
	}
	if errors.Is(context.Cause(ctx), ErrRetired) {
		return ErrRetired
	}
	return nil
}

// term is one try to lead, and the time as leader that comes of it.
func (e *Election) term(ctx context.Context, lead func(context.Context)) error {
	var led sync.WaitGroup
	begun := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: e.lock, LeaseDuration: e.o.Times.Lease, RenewDeadline: e.o.Times.Renew, RetryPeriod: e.o.Times.Retry, Name: e.o.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				led.Go(func() { e.alone(ctx, lead) })
				close(begun)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("stand for election by Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
	}
	elector.Run(ctx)
	if elector.IsLeader() || e.lock.acquired() {
		<-begun
		led.Wait()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.o.Times.Renew/2)
		defer cancel()
		e.lock.release(limited)
	}
	return nil
}

// failed notes why the Lease cannot be read or written. A leader is one for as long as its
// time lasts.
func (e *Election) failed(err error) {
	e.mu.Lock()
	leading, old := e.state.Leading, e.state.Problem
	e.mu.Unlock()
	switch {
	case leading:
	case err != nil:
		text := fmt.Sprintf("%s: %v", e.lock.Describe(), err)
		if apierrors.IsForbidden(err) {
			text += "; allow get, create and update of leases.coordination.k8s.io in namespace " + e.o.Namespace + " by a Role"
		} else if apierrors.IsNotFound(err) {
			text += "; create the namespace, or name that of the installation by --namespace"
		}
		e.set(State{Problem: text})
	case strings.HasPrefix(old, e.lock.Describe()):
		e.set(State{})
	}
}

// set notes how it stands, and logs what is new.
func (e *Election) set(s State) {
	e.mu.Lock()
	old := e.state
	e.state = s
	e.mu.Unlock()
	if s.Problem != "" && s.Problem != old.Problem {
		e.o.Log.Warn("not leading", "problem", s.Problem)
	}
	if s.Leading != old.Leading {
		e.o.Log.Info("leader", "leading", s.Leading, "identity", e.o.Identity)
	}
}
