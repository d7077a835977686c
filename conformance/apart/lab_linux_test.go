// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
)

// holdVariable of the environment makes the binary a client in a pod that begins requests
// and never ends them: to the address that is its value.
const holdVariable = "FAIRLEAD_HOLD"

func TestMain(m *testing.M) {
	twonodes.ServeTraffic()
	if addr := os.Getenv(holdVariable); addr != "" {
		holdAll(addr)
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(twonodes.RunTests(m, "apart"))
}

type world struct{ *twonodes.Lab }

// manifests are the demo's application and its routes and policies by Istio.
func manifests(t *testing.T) string {
	t.Helper()
	var all []string
	for _, name := range []string{"app.yaml", "istio.yaml"} {
		b, err := os.ReadFile(filepath.Join("..", "demo", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, "\n---\n")
}

// beStrict has all Envoys reject what the agents take for good: long regular expressions.
func (w *world) beStrict(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fairlead-strict-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	real, strict := filepath.Join(dir, "envoy"), filepath.Join(dir, "strict")
	b, err := os.ReadFile(need.Envoy(t))
	if err == nil {
		err = errors.Join(os.WriteFile(real, b, 0o755), os.Chmod(dir, 0o755)) // Envoys' users get to it
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.envoy="+real, "-o", strict, "../live/testdata/strict").CombinedOutput(); err != nil {
		t.Fatalf("build strict: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, node := range w.Nodes() {
		err := errors.Join(lab.Stop(ctx, w.Name, node, "proxy", syscall.SIGTERM), lab.Start(ctx, w.Name, node, "proxy", "--envoy="+strict, "--evict-after=2s"))
		if err != nil {
			t.Fatal(err)
		}
		for {
			s, err := w.Agents[node].Status(ctx)
			if err == nil && s.Proxy != nil && s.Proxy.Envoy.Connected && !s.Proxy.Envoy.Adopted {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: no strict Envoy: %v", node, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// held is how many requests a client begins that never ends them, and what each has of
// headers.
const (
	held      = 4000
	heldBytes = 50_000
)

// holdAll has a proxy keep what it was sent of many requests. Who does not get through has
// found that it has no more room: that is what is asked for.
func holdAll(addr string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	headers := "GET /api/x HTTP/1.1\r\nhost: reviews\r\n"
	for i := 0; len(headers) < heldBytes; i++ {
		headers += "x-" + strconv.Itoa(i) + ": " + strings.Repeat("y", 1000) + "\r\n"
	}
	var all sync.WaitGroup
	for range held {
		all.Go(func() {
			for ctx.Err() == nil {
				d := net.Dialer{Timeout: time.Second}
				c, err := d.DialContext(ctx, "tcp", addr)
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				defer c.Close()
				fmt.Fprint(c, headers)
				<-ctx.Done()
			}
		})
	}
	all.Wait()
}

// hold runs such a client in a pod until what it returns is called.
func (w *world) hold(t *testing.T, pod, addr string) (end func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		var problems bytes.Buffer
		_, err := lab.Exec(ctx, w.Name, pod, []string{"env", holdVariable + "=" + addr, self}, lab.Stdio{Out: &problems, Err: &problems})
		if err != nil && ctx.Err() == nil {
			t.Errorf("client in %s: %v: %s", pod, err, problems.String())
		}
	})
	end = func() { stop(); running.Wait() }
	t.Cleanup(end)
	return end
}
