// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fairlead.io/fairlead/lab/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs an echo server on free ports of the kinds.
func serve(t *testing.T, kinds ...string) []string {
	t.Helper()
	var ports []echo.Port
	var addrs []string
	for _, k := range kinds {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := l.Addr().(*net.TCPAddr).Port
		ports = append(ports, echo.Port{Number: uint16(n), Kind: k})
		addrs = append(addrs, fmt.Sprintf("localhost:%d", n))
		l.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- echo.New(echo.Facts{Pod: "p-1", Deployment: "p"}, slog.New(slog.DiscardHandler)).Run(ctx, ports...)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for i, k := range kinds {
		for range 200 {
			if serves(t, k, addrs[i]) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return addrs
}

func serves(t *testing.T, kind, addr string) bool {
	t.Helper()
	if kind == "udp" {
		r, err := Do(context.Background(), []Request{{URL: "udp://" + addr, Timeout: "100ms"}})
		return err == nil && r[0].Error == ""
	}
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestRunCountsEverything(t *testing.T) {
	addr := serve(t, "http")[0]
	reports := 0
	six := strings.Replace(addr, "localhost", "[::1]", 1)
	sum, err := Run(context.Background(), Options{URLs: []string{"http://" + addr + "/a", "http://" + six + "/b"}, Rate: 400,
		Duration: 1500 * time.Millisecond, Fresh: 0.3}, func(Summary) { reports++ })
	if err != nil {
		t.Fatal(err)
	}
	if sum.Requests != sum.OK || sum.Requests < 500 || sum.Requests > 610 || sum.By["p"] != sum.OK || reports != 1 {
		t.Errorf("%d reports, %+v", reports, sum)
	}
	if sum.P50 <= 0 || sum.P50 > sum.P99 || sum.P99 > sum.Max {
		t.Errorf("latencies %+v", sum)
	}
	r, err := Do(context.Background(), []Request{{URL: "http://" + addr + "/count"}})
	var n echo.Count
	if err != nil || json.Unmarshal([]byte(r[0].Body), &n) != nil || n.Count != sum.Requests {
		t.Errorf("the server has seen %d requests of %d: %v %v", n.Count, sum.Requests, r, err)
	}
}

// Every kind of failure is counted as such, and none is retried.
func TestRunCountsFailures(t *testing.T) {
	addr := serve(t, "http")[0]
	for query, want := range map[string]string{"?status=503": "status 503", "?reset=1": "closed", "?delay=1s": "timeout"} {
		sum, err := Run(context.Background(), Options{URLs: []string{"http://" + addr + "/" + query}, Rate: 100, Duration: 200 * time.Millisecond,
			Timeout: 300 * time.Millisecond, Connections: 4}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Requests == 0 || sum.Failed != sum.Requests || sum.Failures[want] != sum.Failed {
			t.Errorf("%s: %+v", query, sum)
		}
	}
	sum, err := Run(context.Background(), Options{URLs: []string{"http://" + addr}, Rate: 100, Duration: 100 * time.Millisecond,
		Families: []string{"4", "6"}, Host: "x"}, nil)
	if err != nil || sum.OK == 0 || sum.OK+sum.Failures[classDNS] != sum.Requests {
		t.Errorf("families: %+v %v", sum, err) // whether localhost has an IPv6 address is the machine's
	}
	free := "127.0.0.1:1"
	for _, forbid := range []bool{false, true} {
		sum, err := Run(context.Background(), Options{URLs: []string{"http://" + free}, Rate: 100, Duration: 100 * time.Millisecond, Forbid: forbid}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if forbid && (sum.OK != sum.Requests || sum.Refusals["refused"] != sum.OK) || !forbid && sum.Failures["refused"] != sum.Requests {
			t.Errorf("forbid %v: %+v", forbid, sum)
		}
	}
}

func TestForbid(t *testing.T) {
	addr := serve(t, "http")[0]
	for query, violations := range map[string]bool{"": true, "?status=204": true, "?status=403": false, "?reset=1": false} {
		sum, err := Run(context.Background(), Options{URLs: []string{"http://" + addr + "/" + query}, Rate: 50, Duration: 100 * time.Millisecond, Forbid: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (sum.Violations == sum.Requests) != violations || (sum.OK == sum.Requests) == violations {
			t.Errorf("%q: %+v", query, sum)
		}
	}
	sum, err := Run(context.Background(), Options{URLs: []string{"http://no.such.name.invalid"}, Rate: 50, Duration: 50 * time.Millisecond, Forbid: true}, nil)
	if err != nil || sum.Failed != sum.Requests {
		t.Errorf("a name that is not known shows nothing: %+v %v", sum, err)
	}
}

// A connection that the server closed while it was idle is no failure; one that it
// closes on a request is.
func TestIdleClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int64
	srv := &http.Server{IdleTimeout: 30 * time.Millisecond, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	sum, err := Run(context.Background(), Options{URLs: []string{"http://" + l.Addr().String()}, Rate: 5, Duration: 900 * time.Millisecond, Connections: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Failed != 0 || sum.IdleClosed == 0 || int64(sum.Requests) != served.Load() {
		t.Errorf("%+v, served %d", sum, served.Load())
	}
	srv.Close()
	<-done
}

func TestMainPrintsSummaries(t *testing.T) {
	addr := serve(t, "http")[0]
	var out, errs bytes.Buffer
	code := Main(context.Background(), []string{"--url", "http://" + addr, "--rate", "50", "--duration", "1200ms", "-4", "--header", "x-a: b"}, &out, &errs)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last Summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || code != 0 || len(lines) != 2 || !last.Final || last.OK == 0 {
		t.Errorf("exit %d, %d lines, last %+v, %v, %s", code, len(lines), last, err, errs.String())
	}
	for _, args := range [][]string{{"--url", "ftp://x"}, {"--what"}, {"x"}, {"--header", "x", "--url", "http://x"}} {
		if code := Main(context.Background(), args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%v: exit %d", args, code)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := Main(ctx, nil, io.Discard, io.Discard); code != 0 {
		t.Errorf("idle: exit %d", code)
	}
}

func TestHistogram(t *testing.T) {
	for i := range 64 * steps {
		if us := lower(i); step(us) != i || us > 0 && step(us-1) != i-1 {
			t.Fatalf("step %d starts at %d, which is in step %d", i, us, step(us))
		}
		if lower(i) > math.MaxUint64/2 {
			break
		}
	}
	var h histogram
	r := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		h.add(time.Duration(r.IntN(1000)) * time.Millisecond)
	}
	for share, want := range map[float64]float64{0.5: 500, 0.99: 990, 1: 999} {
		if got := h.at(share); math.Abs(got-want) > want/40 {
			t.Errorf("at %v: %v, want about %v", share, got, want)
		}
	}
}
