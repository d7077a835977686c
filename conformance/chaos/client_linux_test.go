// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"fairlead.io/fairlead/lab/echo"
)

// stream is one request after the other, by workers that do the same.
type stream struct {
	Name    string
	Addr    string // to connect to
	Host    string
	Method  string
	Path    string
	Keep    bool // over connections that stay
	Once    bool // one request is all
	Workers int
	Every   time.Duration // between the requests of a worker
	Want    int           // status
	By      []string      // deployments that may answer with 200
}

// timeout of a request, connecting included.
const timeout = 5 * time.Second

// failure is a request that did not come to what was wanted.
type failure struct {
	Stream string
	// Opened is when its connection was made, or tried, and Worked when that last brought
	// an answer; zero: never. Began and Ended are the request's own.
	Opened, Worked, Began, Ended time.Time
	Status                       int    // 0: no answer
	By                           string // who answered
	Error                        string
}

func (f failure) String() string {
	what := f.Error
	if f.Status != 0 {
		what = fmt.Sprintf("%d by %q", f.Status, f.By)
	}
	return fmt.Sprintf("%s: %s after %v on a connection that was %v old at its begin, %s", f.Stream, f.Began.Format("15:04:05.000"),
		f.Ended.Sub(f.Began).Round(time.Millisecond), f.Began.Sub(f.Opened).Round(time.Millisecond), what)
}

// result is what a client in a pod reports.
type result struct {
	Sent     map[string]int // by stream
	Slowest  time.Duration
	Failures []failure
}

// runClient sends the streams that it reads until it is told to end.
func runClient() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var streams []stream
	if err := json.NewDecoder(os.Stdin).Decode(&streams); err != nil {
		return fmt.Errorf("read what to send: %w", err)
	}
	r := result{Sent: map[string]int{}}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for _, s := range streams {
		for range s.Workers {
			workers.Go(func() {
				s.run(ctx, func(took time.Duration, f *failure) {
					mu.Lock()
					defer mu.Unlock()
					r.Sent[s.Name]++
					r.Slowest = max(r.Slowest, took)
					if f != nil {
						r.Failures = append(r.Failures, *f)
					}
				})
			})
		}
	}
	workers.Wait()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// run reports each request, with the failure if it is one.
func (s stream) run(ctx context.Context, report func(time.Duration, *failure)) {
	var c net.Conn
	var r *bufio.Reader
	var opened, worked time.Time
	closeIt := func() {
		if c != nil {
			c.Close()
			c = nil
		}
	}
	defer closeIt()
	for ; ctx.Err() == nil; sleep(ctx, s.Every) {
		f := failure{Stream: s.Name, Began: time.Now()}
		deadline := f.Began.Add(timeout)
		if c == nil {
			opened, worked = f.Began, time.Time{}
			d := net.Dialer{Deadline: deadline}
			d.SetMultipathTCP(false)
			var err error
			if c, err = d.Dial("tcp", s.Addr); err != nil {
				c = nil
				f.Opened, f.Ended, f.Error = opened, time.Now(), err.Error()
				report(f.Ended.Sub(f.Began), &f)
				if s.Once {
					return
				}
				continue
			}
			r = bufio.NewReader(c)
		}
		keep, err := s.exchange(c, r, deadline, &f)
		f.Opened, f.Worked, f.Ended = opened, worked, time.Now()
		if err == nil {
			worked = f.Ended
		} else {
			f.Error = err.Error()
		}
		if err != nil || !keep || !s.Keep {
			closeIt()
		}
		if err == nil && f.Status == s.Want && (f.Status != http.StatusOK || slices.Contains(s.By, f.By)) {
			report(f.Ended.Sub(f.Began), nil)
		} else {
			report(f.Ended.Sub(f.Began), &f)
		}
		if s.Once {
			return
		}
	}
}

// exchange sends a request and reads the answer.
func (s stream) exchange(c net.Conn, r *bufio.Reader, deadline time.Time, f *failure) (keep bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nhost: %s\r\ncontent-length: 0\r\n\r\n", s.Method, s.Path, s.Host); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	f.Status = resp.StatusCode
	var a echo.Answer
	if err := json.Unmarshal(body, &a); err == nil {
		f.By = a.Deployment
	} else if errors.As(err, new(*json.SyntaxError)) {
		f.By = string(body[:min(len(body), 60)])
	}
	return !resp.Close, nil
}
