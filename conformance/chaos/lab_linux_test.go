// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/translators/objects"
)

// labName is the lab of this run: several may run at once.
var labName = labPrefix + strconv.Itoa(os.Getpid())

const labPrefix = "chaos-"

// world is a lab of two nodes.
type world struct {
	dir    string // of what was built
	status *lab.Status
	agents map[string]*agent.Client
}

var (
	theWorld *world
	upOnce   sync.Once
	upError  error
)

// runTests runs the tests and removes the lab, if they put one up, however they end.
func runTests(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A run that is out of time panics, and nothing of it is called any more.
	limit := 24 * time.Hour
	if f, ok := flag.Lookup("test.timeout").Value.(flag.Getter); ok {
		if d, ok := f.Get().(time.Duration); ok && d > 0 {
			limit = d - 20*time.Second
		}
	}
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		case <-time.After(limit):
		}
		fmt.Fprintln(os.Stderr, "chaos: interrupted, or out of time: removing the lab")
		exit(errors.Join(down(), errors.New("not all tests were run")))
	})
	code := m.Run()
	close(ended)
	watch.Wait()
	if err := down(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	return code
}

// down removes the lab and looks whether processes or mounts of it are left.
func down() error {
	if theWorld == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	run := filepath.Join(lab.Root, labName)
	errs := []error{lab.Down(ctx, labName), os.RemoveAll(theWorld.dir)}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), run) {
		errs = append(errs, fmt.Errorf("something is still mounted below %s, or not: %w", run, err))
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	errs = append(errs, err)
	for _, file := range all {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), run) {
			errs = append(errs, fmt.Errorf("%s still runs: %s", filepath.Dir(file), strings.ReplaceAll(string(b), "\x00", " ")))
		}
	}
	return errors.Join(errs...)
}

// removeStale removes the labs of runs that were killed.
func removeStale(ctx context.Context) error {
	names, err := lab.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(strings.TrimPrefix(name, labPrefix))
		if err != nil || !strings.HasPrefix(name, labPrefix) || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := lab.Down(ctx, name); err != nil && !errors.Is(err, lab.ErrNoLab) {
			return err
		}
	}
	return nil
}

// lives returns the lab, putting it up for the first test that needs it.
func lives(t *testing.T) *world {
	t.Helper()
	need.Root(t)
	envoy := need.Envoy(t)
	upOnce.Do(func() { upError = up(t.Context(), envoy) })
	if upError != nil {
		t.Fatal(upError)
	}
	return theWorld
}

func up(ctx context.Context, envoy string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := removeStale(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairlead-chaos-")
	if err != nil {
		return err
	}
	w := &world{dir: dir, agents: map[string]*agent.Client{}}
	theWorld = w
	bin := filepath.Join(dir, "fairlead")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		return fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	w.status, err = lab.Up(ctx, lab.Options{Name: labName, Nodes: 2, Binary: bin, EnvoyPath: envoy, Out: os.Stderr})
	if err != nil {
		return fmt.Errorf("put up lab: %w", err)
	}
	for _, n := range w.status.Nodes {
		w.agents[n.Name] = agent.NewClient(filepath.Join(w.runDir(n.Name), agent.Socket))
	}
	return w.applied(ctx)
}

func (w *world) runDir(node string) string { return filepath.Join(w.status.Run, node) }

func (w *world) nodes() []string {
	var out []string
	for _, n := range w.status.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// change applies or deletes manifests, and waits until the agents have put that to
// work.
func (w *world) change(t *testing.T, verb func(context.Context, lab.Change) (*lab.Status, error), manifests string) {
	t.Helper()
	file := filepath.Join(w.dir, "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second) // not the test's: it ends before its cleanups
	defer cancel()
	s, err := verb(ctx, lab.Change{Name: labName, Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	w.status = s
	if err := w.applied(ctx); err != nil {
		t.Fatal(err)
	}
}

// applied waits until all agents have put the lab's cluster folder to work.
func (w *world) applied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		want := agent.Revision(objects.Files([]string{filepath.Join(w.status.Run, "source")}, nil))
		late := ""
		for _, node := range w.nodes() {
			s, err := w.agents[node].Status(ctx)
			if err != nil {
				late = fmt.Sprintf("%s: %v", node, err)
			} else if s.Applied != want || s.Problem != "" {
				late = fmt.Sprintf("%s: applied %s, want %s; problem: %s", node, s.Applied, want, s.Problem)
			}
		}
		if late == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("agents have not put the cluster to work: %s", late)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// address of a service in a family.
func (w *world) address(t *testing.T, namespace, service string, six bool) netip.Addr {
	t.Helper()
	for _, s := range w.status.Services {
		if s.Namespace != namespace || s.Name != service {
			continue
		}
		if i := slices.IndexFunc(s.Addresses, func(a netip.Addr) bool { return a.Is6() == six }); i >= 0 {
			return s.Addresses[i]
		}
	}
	t.Fatalf("service %s/%s has no such address", namespace, service)
	return netip.Addr{}
}

// client sends streams from a pod until the returned function is called.
func (w *world) client(t *testing.T, pod string, streams []stream) (end func() result) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var r result
	var err error
	var running sync.WaitGroup
	running.Go(func() { r, err = send(ctx, pod, streams) })
	t.Cleanup(func() { stop(); running.Wait() })
	return func() result {
		t.Helper()
		stop()
		running.Wait()
		if err != nil {
			t.Error(err)
		}
		return r
	}
}

// once sends one request from a pod.
func (w *world) once(t *testing.T, pod string, s stream) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout+patience)
	defer cancel()
	r, err := send(ctx, pod, []stream{s})
	if err != nil {
		t.Error(err)
	}
	return r
}

// send runs a client in a pod until its streams end, or the context does.
func send(ctx context.Context, pod string, streams []stream) (result, error) {
	var r result
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	in, err := json.Marshal(streams)
	if err != nil {
		return r, err
	}
	var out, problems bytes.Buffer
	_, err = lab.Exec(ctx, labName, pod, []string{"env", roleVariable + "=" + roleClient, self}, lab.Stdio{In: bytes.NewReader(in), Out: &out, Err: &problems})
	if errors.Is(err, context.Canceled) {
		err = nil // it was told to end
	}
	if err = errors.Join(err, json.Unmarshal(out.Bytes(), &r)); err != nil {
		return r, fmt.Errorf("client in %s: %w: %s", pod, err, problems.String())
	}
	return r, nil
}
