// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fairlead.io/fairlead/hubble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveTestAPI runs the API until the test ends.
func serveTestAPI(t *testing.T, ring *hubble.Ring) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveAPI(ctx, socket, answers{status: func() Status { return Status{Node: "n1"} },
			ready: func() Readiness { return Readiness{Why: "not yet"} }}, ring)
	}()
	c := NewClient(socket)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.http.CloseIdleConnections()
	})
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := c.Status(ctx)
		if err == nil && s.Node == "n1" {
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("status %+v, %v", s, err)
		}
	}
}

func TestFlowsOfThePastAndAsTheyCome(t *testing.T) {
	ring := hubble.NewRing(8)
	ring.Add(hubble.Flow{Node: "old"})
	c := serveTestAPI(t, ring)
	enough := errors.New("enough")
	var got []string
	err := c.Flows(t.Context(), FlowQuery{Last: 10, Follow: true}, func(f hubble.Flow) error {
		if got = append(got, f.Node); len(got) == 2 {
			return enough
		}
		ring.Add(hubble.Flow{Node: "new"})
		return nil
	})
	if !errors.Is(err, enough) || len(got) != 2 || got[0] != "old" || got[1] != "new" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := c.Flows(t.Context(), FlowQuery{Last: 1}, func(f hubble.Flow) error { got = append(got, f.Node); return nil }); err != nil || len(got) != 3 || got[2] != "new" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := c.Flows(t.Context(), FlowQuery{Last: -1}, func(hubble.Flow) error { return nil }); err != nil {
		t.Errorf("fewer than none: %v", err)
	}
}

// An observer that reads too slowly is told how much it has missed, and one that asks for
// what there cannot be, what is wrong.
func TestFlowsAreFilteredAndLossesTold(t *testing.T) {
	const all = 100_000 // more than sockets and channel hold
	ring := hubble.NewRing(8)
	c := serveTestAPI(t, ring)
	enough := errors.New("enough")
	var got, lost, others uint64
	begun := make(chan struct{})
	go func() {
		<-begun
		for range all {
			ring.Add(hubble.Flow{Verdict: "denied", HTTP: &hubble.HTTP{Status: 403}})
			ring.Add(hubble.Flow{Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 200}})
		}
	}()
	err := c.Flows(t.Context(), FlowQuery{Follow: true, Begun: func() { close(begun) }, Filter: hubble.Filter{Status: codes(t, "4xx")}}, func(f hubble.Flow) error {
		for f.Verdict != hubble.Lost && got == 0 && losses(ring) == 0 {
			time.Sleep(time.Millisecond) // slow until something is lost
		}
		switch f.Verdict {
		case hubble.Lost:
			lost += f.Lost
		case "denied":
			got++
		default:
			others++
		}
		if got+lost == all {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || lost == 0 || others > 0 {
		t.Errorf("%d came, %d were lost, %d were not asked for: %v", got, lost, others, err)
	}
	if err := c.Flows(t.Context(), FlowQuery{Filter: hubble.Filter{Verdict: "no"}}, func(hubble.Flow) error { return nil }); err == nil || !strings.Contains(err.Error(), "verdict no: want one of") {
		t.Errorf("an unknown verdict: %v", err)
	}
}

func losses(r *hubble.Ring) uint64 {
	_, lost := r.Counts()
	return lost
}

func codes(t *testing.T, text string) (s hubble.Status) {
	t.Helper()
	if err := s.Set(text); err != nil {
		t.Fatal(err)
	}
	return s
}

// An observer that nobody stops must not keep the agent from ending.
func TestAPIEndsUnderAFollower(t *testing.T) {
	c := serveTestAPI(t, hubble.NewRing(8))
	following := make(chan struct{})
	go func() {
		defer close(following)
		_ = c.Flows(context.Background(), FlowQuery{Last: 0, Follow: true}, func(hubble.Flow) error { return nil })
	}()
	t.Cleanup(func() { <-following }) // after the API has ended
	time.Sleep(50 * time.Millisecond)
}

func TestAPISaysWhyItCannotServe(t *testing.T) {
	err := serveAPI(t.Context(), filepath.Join(t.TempDir(), "no", "folder"), answers{}, nil)
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		t.Errorf("err = %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "s")).Status(t.Context())
	if err == nil || strings.Contains(err.Error(), "http://") || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("err = %v", err)
	}
}

// Whoever takes the connection and says nothing holds up nobody.
func TestAnAgentHangs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := NewClientOver(func(context.Context) (net.Conn, error) { return near, nil })
	c.limit = 10 * time.Millisecond
	_, err := c.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "it has not answered for 10ms") {
		t.Errorf("got %v", err)
	}
}

func TestReadinessIsAsked(t *testing.T) {
	c := serveTestAPI(t, hubble.NewRing(8))
	if r, err := c.Ready(t.Context()); err != nil || r.Ready || r.Why != "not yet" {
		t.Errorf("%+v, %v", r, err)
	}
}
