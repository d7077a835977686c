// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
)

// source is one load generator or prober in a pod.
type source struct {
	pod     string
	args    []string
	probing bool
}

// sources send from both nodes, over v4 and v6, on kept and on fresh connections;
// the probers ask for what nobody may have: the wrong client, the wrong method, the
// wrong path.
func sources() []source {
	return []source{
		{"shop/frontend-1", []string{"-4", "-6", "--rate", "300", "--fresh", "0.3", "--url", "http://reviews/api/list"}, false},
		{"shop/frontend-2", []string{"-4", "-6", "--rate", "300", "--fresh", "0.3", "--url", "http://reviews.shop.svc.cluster.local/api/list"}, false},
		{"shop/batch-1", []string{"-4", "-6", "--rate", "20", "--fresh", "0.5", "--forbid", "--url", "http://reviews/api/list"}, true},
		{"shop/frontend-1", []string{"-4", "-6", "--rate", "20", "--fresh", "0.5", "--forbid", "--method", "POST", "--url", "http://reviews/api/list"}, true},
		{"shop/frontend-2", []string{"-4", "-6", "--rate", "20", "--fresh", "0.5", "--forbid", "--url", "http://reviews/admin"}, true},
	}
}

// account adds up what came of requests.
type account struct {
	requests, failed, tried, forbidden int64
	by                                 map[string]int64
	classes                            map[string]uint64
}

// split is the share of each version since an earlier account.
func (a account) split(before account) string {
	since := map[string]int64{}
	for k, n := range a.by {
		since[k] = n - before.by[k]
	}
	return ratio(since)
}

// traffic is all sources at work.
type traffic struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	last   []load.Summary
	errs   []error
	from   []source
}

func (d *demo) startTraffic(ctx context.Context) (*traffic, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel, from: sources()}
	t.last = make([]load.Summary, len(t.from))
	for i, s := range t.from {
		r, w := io.Pipe()
		t.wg.Go(func() { t.read(i, r) })
		t.wg.Go(func() {
			defer w.Close()
			command := append([]string{d.binary, "lab-load"}, s.args...)
			if _, err := lab.Exec(ctx, labName, s.pod, command, lab.Stdio{Out: w, Err: os.Stderr}); err != nil && ctx.Err() == nil {
				t.mu.Lock()
				defer t.mu.Unlock()
				t.errs = append(t.errs, fmt.Errorf("load from %s: %w", s.pod, err))
			}
		})
	}
	return t, nil
}

// read keeps a source's newest account.
func (t *traffic) read(i int, r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s load.Summary
		if json.Unmarshal(lines.Bytes(), &s) == nil {
			t.mu.Lock()
			t.last[i] = s
			t.mu.Unlock()
		}
	}
}

// stop ends the sources; what is in flight is finished and counted.
func (t *traffic) stop() {
	t.cancel()
	t.wg.Wait()
}

func (t *traffic) total() account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := account{by: map[string]int64{}, classes: map[string]uint64{}}
	for i, s := range t.last {
		if t.from[i].probing {
			a.tried += int64(s.Requests)
			a.forbidden += int64(s.Violations)
			continue
		}
		a.requests += int64(s.Requests)
		a.failed += int64(s.Failed)
		for k, n := range s.By {
			a.by[k] += int64(n)
		}
		for k, n := range s.Failures {
			a.classes[k] += n
		}
	}
	return a
}

// watch shows a live line for a while. Where the output is no terminal it prints one
// line at the end.
func (t *traffic) watch(ctx context.Context, out io.Writer, d time.Duration) error {
	live := terminal(out)
	end := time.After(d)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	start, begin := t.total(), time.Now()
	line := func() string {
		now := t.total()
		rate := float64(now.requests-start.requests) / time.Since(begin).Seconds()
		return fmt.Sprintf("   %6d requests (%.0f/s), %d failed; %d forbidden tried, %d let through; split %s",
			now.requests, rate, now.failed, now.tried, now.forbidden, now.split(start))
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if live {
				fmt.Fprintf(out, "\r%s%s", line(), strings.Repeat(" ", 8))
			}
		case <-end:
			if live {
				fmt.Fprint(out, "\r")
			}
			fmt.Fprintf(out, "%s%s\n", line(), strings.Repeat(" ", 8))
			t.mu.Lock()
			defer t.mu.Unlock()
			if len(t.errs) > 0 {
				return t.errs[0]
			}
			return nil
		}
	}
}
