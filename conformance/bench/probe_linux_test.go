// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/lab"
)

// probeEnv has this binary ask the address that it says, again and again.
const probeEnv = "FAIRLEAD_BENCH_PROBE"

func TestMain(m *testing.M) {
	if to := os.Getenv(probeEnv); to != "" {
		ask(to)
		return
	}
	m.Run()
}

// refusedAfter is how long a connection may take: one that is dropped says nothing.
const refusedAfter = 100 * time.Millisecond

// ask prints of each request when it began and ended, in ns, and whether it was answered 200.
// Each has its own connection.
func ask(to string) {
	client := http.Client{Timeout: refusedAfter, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{Timeout: refusedAfter}).DialContext,
	}}
	for ; ; time.Sleep(2 * time.Millisecond) {
		began, state := time.Now(), 0
		if resp, err := client.Get(to); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				state = 1
			}
		}
		fmt.Println(began.UnixNano(), time.Now().UnixNano(), state)
	}
}

// probe is such a process in a pod.
type probe struct {
	name string
	said chan saying
}

// saying is of a request.
type saying struct {
	began, ended time.Time
	allowed      bool
}

func startProbe(b *testing.B, labName, pod, to string) *probe {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = lab.Exec(ctx, labName, pod, []string{"env", probeEnv + "=" + to, exe}, lab.Stdio{Out: w, Err: os.Stderr}) // until the end
		_ = w.Close()                                                                                                    // never fails
	})
	p := &probe{name: pod + " to " + to, said: make(chan saying, 100_000)}
	wg.Go(func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			var began, ended int64
			var state int
			if _, err := fmt.Sscan(s.Text(), &began, &ended, &state); err == nil {
				p.said <- saying{time.Unix(0, began), time.Unix(0, ended), state == 1}
			}
		}
	})
	b.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

// await is when the first request began that was, or was not, allowed, and so were the
// next two: a single one may be late for other reasons. Only requests that ended after a time count.
func (p *probe) await(b *testing.B, after time.Time, allowed bool) time.Time {
	b.Helper()
	const inRow = 3
	limit := time.After(30 * time.Second)
	var first time.Time
	for n := 0; ; {
		select {
		case s := <-p.said:
			switch {
			case s.allowed != allowed || !s.ended.After(after):
				n = 0
			case n == 0:
				first, n = s.began, 1
			default:
				if n++; n == inRow {
					return first
				}
			}
		case <-limit:
			b.Fatalf("%s: not %v within 30 s", p.name, map[bool]string{true: "let in", false: "kept out"}[allowed])
		}
	}
}
