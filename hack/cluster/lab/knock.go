// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// knocks is what came of knocking at an address.
type knocks struct {
	Address  string    `json:"address"`
	Tried    int       `json:"tried"`
	LetIn    int       `json:"letIn"`
	First    time.Time `json:"first,omitzero"` // connection that was let in
	Last     time.Time `json:"last,omitzero"`
	LastTime time.Time `json:"lastTry"`
}

// knock tries again and again to connect to addresses, whether or not anybody has them
// yet: it reads lines "+ADDRESS:PORT" and "-ADDRESS:PORT", and for each of the latter,
// and at the end, prints what came of it.
func knock(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	f := flag.NewFlagSet("knock", flag.ContinueOnError)
	every := f.Duration("every", 5*time.Millisecond, "pause between tries at an address")
	limit := f.Duration("timeout", time.Second, "for a connection")
	if err := f.Parse(args); err != nil {
		return err
	}
	type one struct {
		stop context.CancelFunc
		done chan knocks
	}
	running := map[string]one{}
	end := func(address string) error {
		o, ok := running[address]
		if !ok {
			return fmt.Errorf("nobody knocks at %s", address)
		}
		delete(running, address)
		o.stop()
		return json.NewEncoder(out).Encode(<-o.done)
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		address, starts := strings.CutPrefix(lines.Text(), "+")
		if !starts {
			if err := end(strings.TrimPrefix(address, "-")); err != nil {
				return err
			}
			continue
		}
		knocking, stop := context.WithCancel(ctx)
		o := one{stop, make(chan knocks, 1)}
		running[address] = o
		go func() { o.done <- knockAt(knocking, address, *every, *limit) }()
	}
	for address := range running {
		if err := end(address); err != nil {
			return err
		}
	}
	return nil
}

func knockAt(ctx context.Context, address string, every, limit time.Duration) knocks {
	k := knocks{Address: address}
	var mu sync.Mutex
	var group sync.WaitGroup
	t := time.NewTicker(every)
	defer t.Stop()
	for ctx.Err() == nil {
		k.Tried++
		group.Go(func() {
			conn, err := net.DialTimeout("tcp", address, limit)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			if k.LetIn++; k.First.IsZero() {
				k.First = time.Now()
			}
			k.Last = time.Now()
		})
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	k.LastTime = time.Now()
	group.Wait()
	return k
}
