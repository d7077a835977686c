// SPDX-License-Identifier: Apache-2.0

// Package traffic is load from inside a lab's pods, of which every single request is
// accounted for: requests over connections that stay and over fresh ones, messages of
// long streams of gRPC and of long connections, datagrams. Each of them has a time, so
// that a test can tell what a fault has cost.
//
// It runs in the pod as a program, see [Run]: the binary of a test, as a rule.
package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Kind is what a stream speaks.
type Kind string

const (
	// HTTP is one request after the other, over HTTP/1.1.
	HTTP Kind = ""
	// GRPC is one message after the other over a stream, each of which is answered.
	GRPC Kind = "grpc"
	// TCP is one message after the other over a connection, or with a connection each;
	// each is echoed.
	TCP Kind = "tcp"
	// UDP is one datagram after the other, each of which is echoed.
	UDP Kind = "udp"
)

// Stream is one request after the other, by workers that do the same.
type Stream struct {
	Name   string
	Kind   Kind
	Addr   string // to connect to
	Host   string // of HTTP
	Method string
	Path   string
	Keep   bool // over connections that stay
	// Last is how long one that stays does; 0 = to the end.
	Last    time.Duration
	Once    bool // one request is all
	Workers int
	Every   time.Duration // between the requests of a worker
	Want    int           // status of HTTP
	By      []string      // deployments that may answer HTTP with 200
	// Forbid: no answer, or one that says no, is what is wanted, and any other is a
	// violation.
	Forbid bool
	// Timeout of a request, connecting included; 0 = Timeout.
	Timeout time.Duration
}

// Timeout is a request's, if its stream has none.
const Timeout = 5 * time.Second

// lastMoment is what a request has that is under way when all is to end.
const lastMoment = 500 * time.Millisecond

// Failure is a request that did not come to what was wanted.
type Failure struct {
	Stream string
	// Opened is when its connection was made, or tried, and Worked when that last brought
	// an answer; zero: never. Began and Ended are the request's own.
	Opened, Worked, Began, Ended time.Time
	Status                       int    // 0: no answer
	By                           string // who answered
	Error                        string
}

func (f Failure) String() string {
	what := f.Error
	if f.Status != 0 {
		what = fmt.Sprintf("%d by %q", f.Status, f.By)
	}
	return fmt.Sprintf("%s: %s after %v on a connection that was %v old at its begin, %s", f.Stream, f.Began.Format("15:04:05.000"),
		f.Ended.Sub(f.Began).Round(time.Millisecond), f.Began.Sub(f.Opened).Round(time.Millisecond), what)
}

// Result is what a client in a pod reports.
type Result struct {
	Sent     map[string]int // by stream
	Slowest  time.Duration
	Failures []Failure
	// Violations are requests that must not have come through, and did.
	Violations []Failure
	// Last is when a request of a stream last came to what was wanted.
	Last map[string]time.Time
}

// Run sends the streams that it reads until it is told to end (SIGTERM), and writes a
// Result.
func Run(in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var streams []Stream
	if err := json.NewDecoder(in).Decode(&streams); err != nil {
		return fmt.Errorf("read what to send: %w", err)
	}
	r := Result{Sent: map[string]int{}, Last: map[string]time.Time{}}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for _, s := range streams {
		for range s.Workers {
			workers.Go(func() {
				s.run(ctx, func(f Failure, ok bool) {
					mu.Lock()
					defer mu.Unlock()
					r.Sent[s.Name]++
					r.Slowest = max(r.Slowest, f.Ended.Sub(f.Began))
					switch {
					case ok:
						if f.Ended.After(r.Last[s.Name]) {
							r.Last[s.Name] = f.Ended
						}
					case s.Forbid:
						r.Violations = append(r.Violations, f)
					default:
						r.Failures = append(r.Failures, f)
					}
				})
			})
		}
	}
	workers.Wait()
	return json.NewEncoder(out).Encode(r)
}

// conversation is a connection of a worker.
type conversation interface {
	// ask sends a request and reads its answer. The connection is good for more if keep
	// is set.
	ask(deadline time.Time, f *Failure) (keep bool, err error)
	Close() error
}

// run reports each request, and whether it came to what was wanted.
func (s Stream) run(ctx context.Context, report func(f Failure, ok bool)) {
	if s.Timeout == 0 {
		s.Timeout = Timeout
	}
	var c conversation
	var opened, worked time.Time
	closeIt := func() {
		if c != nil {
			c.Close()
			c = nil
		}
	}
	defer closeIt()
	// What is under way when it is to end has a moment still, and no more: whoever waits
	// for the account does not wait for what hangs.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastMoment, cut) })()
	for ; ctx.Err() == nil; sleep(ctx, s.Every) {
		f := Failure{Stream: s.Name, Began: time.Now()}
		deadline := f.Began.Add(s.Timeout)
		var err error
		if s.Last > 0 && time.Since(opened) > s.Last {
			closeIt()
		}
		if c == nil {
			opened, worked = f.Began, time.Time{}
			if c, err = s.open(hard, deadline); err != nil {
				c = nil
			}
		}
		keep := false
		if err == nil {
			stop := context.AfterFunc(hard, func() { c.Close() })
			keep, err = c.ask(deadline, &f)
			stop()
		}
		f.Opened, f.Worked, f.Ended = opened, worked, time.Now()
		if err == nil {
			worked = f.Ended
		} else {
			f.Error = err.Error()
		}
		if err != nil || !keep || !s.Keep {
			closeIt()
		}
		if hard.Err() != nil && f.Ended.Sub(f.Began) < 2*lastMoment {
			return // it had no time
		}
		report(f, s.isWanted(f, err))
		if s.Once {
			return
		}
	}
}

func (s Stream) isWanted(f Failure, err error) bool {
	switch {
	case s.Forbid:
		return err != nil || f.Status >= 400
	case err != nil:
		return false
	case s.Kind != HTTP:
		return true
	}
	return f.Status == s.Want && (f.Status != 200 || slices.Contains(s.By, f.By))
}

func (s Stream) open(ctx context.Context, deadline time.Time) (conversation, error) {
	switch s.Kind {
	case HTTP:
		return s.openHTTP(ctx, deadline)
	case GRPC:
		return s.openGRPC(ctx, deadline)
	default:
		return s.openBytes(ctx, deadline)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
