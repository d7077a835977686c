// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Events calls fn for each flow that the kernel reports, in order and one at a time,
// until the context ends; then it returns nil. Only one Events may run on a node: a
// flow goes to one reader. If fn is slow, flows are lost and counted in Status. End
// the context before Close.
func (d *Datapath) Events(ctx context.Context, fn func(Flow)) error {
	r, err := ringbuf.NewReader(d.objects.maps[mapEvents])
	if err != nil {
		return fmt.Errorf("read flows: %w", err)
	}
	ctx, end := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() { lookForEvents(ctx, r) })
	defer looking.Wait()
	defer end()
	var rec ringbuf.Record
	for {
		if err := r.ReadInto(&rec); errors.Is(err, ringbuf.ErrFlushed) {
			continue
		} else if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read flows: %w", err)
		}
		wall, err := bootWall()
		if err != nil {
			return err
		}
		f, err := toFlow(rec.RawSample, wall)
		if err != nil {
			return err
		}
		f.Client = d.clients.name(f.Netns)
		fn(f)
	}
}

// eventsEvery is how often events are looked for: the kernel does not say that there are
// some, unless they are many.
const eventsEvery = 20 * time.Millisecond

// lookForEvents has a reader read what there is, again and again, and closes it at the end.
func lookForEvents(ctx context.Context, r *ringbuf.Reader) {
	t := time.NewTicker(eventsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if r.AvailableBytes() > 0 {
				_ = r.Flush() // fails only if closed
			}
		case <-ctx.Done():
			_ = r.Close() // makes Read return
			return
		}
	}
}

// bootWall is the time at which the kernel's monotonic clock was 0. It is asked for
// each flow, because the wall clock is set now and then.
func bootWall() (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	return time.Now().Add(-time.Duration(ts.Nano())).Round(0), nil
}
