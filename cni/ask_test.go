// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var some = ID{Container: "abc", IfName: "eth0"}

// listen has f answer everybody who asks, as an agent that is not one of ours might.
func listen(t *testing.T, run string, f func(n int, conn net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(run, Socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(n, conn)
			}()
		}
	}()
}

// serve has an agent answer.
func serve(t *testing.T, run string, answers func(context.Context, ID, func(Answer) bool)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, run, answers) }()
	stop = func() {
		cancel()
		if err, ok := <-done; ok && err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { cancel() })
	return stop
}

func ask(t *testing.T, run string, need bool, within time.Duration) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	out := Ask(ctx, run, some, need)
	if out.Waited > within+5*time.Second {
		t.Errorf("it took %s, and was to take no more than %s", out.Waited, within)
	}
	return out
}

func TestNobodyAnswers(t *testing.T) {
	run := t.TempDir()
	if out := ask(t, run, true, 1500*time.Millisecond); out.Guarded || out.Heard || out.Waited < 1500*time.Millisecond || !strings.Contains(out.State, "no agent answers at "+run) {
		t.Errorf("where it is needed: %+v", out)
	}
	if out := ask(t, run, false, time.Minute); out.Guarded || out.Heard || out.Waited > 30*time.Second {
		t.Errorf("where it is not needed: %+v", out)
	}
	// A socket that nobody listens at any more.
	l, err := net.Listen("unix", filepath.Join(run, Socket))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if out := ask(t, run, false, time.Minute); out.Guarded || out.Heard || out.Waited > 30*time.Second {
		t.Errorf("with a socket that is left: %+v", out)
	}
}

// An agent that is there is waited for, also where it is not needed.
func TestAnAgentThatIsNotDone(t *testing.T) {
	run := t.TempDir()
	serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) {
		f(Answer{State: "one thing"})
		f(Answer{State: "another thing"})
		<-ctx.Done()
	})
	eventuallyThere(t, run)
	if out := ask(t, run, false, 2500*time.Millisecond); out.Guarded || !out.Heard || out.State != "another thing" || out.Waited < 2500*time.Millisecond {
		t.Errorf("%+v", out)
	}
}

func TestAnAgentThatTakesItsTime(t *testing.T) {
	run := t.TempDir()
	serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) {
		if id != some {
			t.Errorf("asked for %v", id)
		}
		f(Answer{State: "a moment"})
		time.Sleep(300 * time.Millisecond)
		f(Answer{Ready: true, Guarded: true})
	})
	if out := ask(t, run, true, 30*time.Second); !out.Guarded || out.State != "" || out.Waited < 300*time.Millisecond {
		t.Errorf("%+v", out)
	}
}

// Routes are waited for, and not for ever.
func TestGuardedWithoutRoutes(t *testing.T) {
	run := t.TempDir()
	serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) {
		f(Answer{Guarded: true, State: "no Envoy"})
		<-ctx.Done()
	})
	if out := ask(t, run, true, time.Minute); !out.Guarded || out.State != "no Envoy" || out.Waited < routesLimit || out.Waited > 30*time.Second {
		t.Errorf("%+v", out)
	}
}

// What was said and is taken back does not count.
func TestGuardedNoMore(t *testing.T) {
	run := t.TempDir()
	serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) {
		f(Answer{Guarded: true, State: "no Envoy"})
		f(Answer{State: "its interface is gone"})
		<-ctx.Done()
	})
	if out := ask(t, run, true, routesLimit+time.Second); out.Guarded || out.State != "its interface is gone" {
		t.Errorf("%+v", out)
	}
}

func TestAnAgentDies(t *testing.T) {
	run := t.TempDir()
	listen(t, run, func(n int, conn net.Conn) {
		switch n {
		case 0: // before it has heard the question
		case 1: // in the middle of a word
			fmt.Fprint(conn, `{"state": "a mom`)
		case 2:
			fmt.Fprintln(conn, `{"state": "a moment"}`)
		default:
			fmt.Fprintln(conn, `{"ready": true}`)
		}
	})
	if out := ask(t, run, true, 30*time.Second); !out.Guarded {
		t.Errorf("%+v", out)
	}
}

func TestRubbish(t *testing.T) {
	for what, say := range map[string]string{
		"words":            "hello\n",
		"another type":     `{"ready": "yes"}` + "\n",
		"a list":           `[{"ready": true}]` + "\n",
		"without an end":   strings.Repeat(`{"ready": true, `, 10_000),
		"nothing":          "",
		"half of a yes":    `{"ready": true`,
		"an empty line":    "\n",
		"something unread": `{"done": true}` + "\n",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			run := t.TempDir()
			listen(t, run, func(n int, conn net.Conn) { fmt.Fprint(conn, say) })
			if out := ask(t, run, true, time.Second); out.Guarded {
				t.Errorf("%+v", out)
			}
		})
	}
}

// What is no question gets no answer, and costs those who ask nothing.
func TestRubbishFromPlugins(t *testing.T) {
	run := t.TempDir()
	stop := serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) { f(Answer{Ready: true}) })
	eventuallyThere(t, run)
	for _, say := range []string{"\n", "hello\n", `{"container": "../x", "ifName": "eth0"}` + "\n", `{"container": "a"}` + "\n", strings.Repeat("x", 100_000) + "\n"} {
		conn, err := net.Dial("unix", filepath.Join(run, Socket))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprint(conn, say) // it may have hung up
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%.20q is answered", say)
		}
		conn.Close()
	}
	if out := ask(t, run, true, 10*time.Second); !out.Guarded {
		t.Errorf("%+v", out)
	}
	stop()
}

// A plugin that has gone is waited for by nobody.
func TestAPluginGoes(t *testing.T) {
	run := t.TempDir()
	gone := make(chan struct{})
	stop := serve(t, run, func(ctx context.Context, id ID, f func(Answer) bool) {
		f(Answer{State: "a moment"})
		<-ctx.Done()
		close(gone)
	})
	if out := ask(t, run, true, 2*time.Second); out.Guarded || !out.Heard {
		t.Errorf("%+v", out)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("its question is still being answered")
	}
	stop()
}

func eventuallyThere(t *testing.T, run string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", filepath.Join(run, Socket)); err == nil {
			conn.Close()
			return
		}
	}
	t.Fatal("nobody listens")
}
