// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
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
	stop := context.AfterFunc(ctx, func() { _ = r.Close() }) // makes Read return
	defer stop()
	defer r.Close()
	var rec ringbuf.Record
	for {
		if err := r.ReadInto(&rec); errors.Is(err, ringbuf.ErrClosed) {
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

// bootWall is the time at which the kernel's monotonic clock was 0. It is asked for
// each flow, because the wall clock is set now and then.
func bootWall() (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	return time.Now().Add(-time.Duration(ts.Nano())).Round(0), nil
}
