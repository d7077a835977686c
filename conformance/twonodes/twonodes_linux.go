// SPDX-License-Identifier: Apache-2.0

package twonodes

import (
	"bytes"
	"cmp"
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
	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/translators/objects"
)

// Lab is a lab of two nodes.
type Lab struct {
	Name   string // several may run at once
	Dir    string // of what was built
	Binary string // what agents and proxies are started from
	Status *lab.Status
	Agents map[string]*agent.Client
}

// Patience bounds all that has to come.
const Patience = 20 * time.Second

// clientVariable of the environment makes the binary of the tests a client in a pod.
const clientVariable = "FAIRLEAD_TRAFFIC"

var (
	prefix  string // of labs' names
	theLab  *Lab
	upOnce  sync.Once
	upError error
)

// ServeTraffic is what a TestMain calls first: where the binary was started as a client in
// a pod, it is that, and does not return.
func ServeTraffic() {
	if os.Getenv(clientVariable) == "" {
		return
	}
	if err := traffic.Run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RunTests runs the tests and removes the lab, if they put one up, however they end. What
// labs are called begins with as, a dash, and nobody else's do.
func RunTests(m *testing.M, as string) int {
	prefix = as + "-"
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
		fmt.Fprintln(os.Stderr, "interrupted, or out of time: removing the lab")
		if err := down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	})
	code := m.Run()
	close(ended)
	watch.Wait()
	if err := down(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// down removes the lab and looks whether processes or mounts of it are left.
func down() error {
	if theLab == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	name := theLab.Name
	run := filepath.Join(lab.Root, name)
	errs := []error{lab.Down(ctx, name), os.RemoveAll(theLab.Dir)}
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
		pid, err := strconv.Atoi(strings.TrimPrefix(name, prefix))
		if err != nil || !strings.HasPrefix(name, prefix) || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := lab.Down(ctx, name); err != nil && !errors.Is(err, lab.ErrNoLab) {
			return err
		}
	}
	return nil
}

// Lives returns the lab, putting it up for the first test that needs it.
func Lives(t *testing.T) *Lab {
	t.Helper()
	need.Root(t)
	envoy := need.Envoy(t)
	upOnce.Do(func() { upError = up(t.Context(), envoy) })
	if upError != nil {
		t.Fatal(upError)
	}
	return theLab
}

func up(ctx context.Context, envoy string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := removeStale(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairlead-"+prefix)
	if err != nil {
		return err
	}
	w := &Lab{Name: prefix + strconv.Itoa(os.Getpid()), Dir: dir, Binary: filepath.Join(dir, "fairlead"), Agents: map[string]*agent.Client{}}
	theLab = w
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", w.Binary, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		return fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	w.Status, err = lab.Up(ctx, lab.Options{Name: w.Name, Nodes: 2, Binary: w.Binary, EnvoyPath: envoy, Out: os.Stderr})
	if err != nil {
		return fmt.Errorf("put up lab: %w", err)
	}
	for _, n := range w.Status.Nodes {
		w.Agents[n.Name] = agent.NewClient(filepath.Join(w.RunDir(n.Name), agent.Socket))
	}
	return w.Applied(ctx)
}

// RunDir is a node's run folder.
func (w *Lab) RunDir(node string) string { return filepath.Join(w.Status.Run, node) }

// Nodes are their names.
func (w *Lab) Nodes() []string {
	var out []string
	for _, n := range w.Status.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// Change applies or deletes manifests, and waits until the agents have put that to
// work.
func (w *Lab) Change(t *testing.T, verb func(context.Context, lab.Change) (*lab.Status, error), manifests string) {
	t.Helper()
	file := filepath.Join(w.Dir, "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second) // not the test's: it ends before its cleanups
	defer cancel()
	s, err := verb(ctx, lab.Change{Name: w.Name, Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	w.Status = s
	if err := w.Applied(ctx); err != nil {
		t.Fatal(err)
	}
}

// Applied waits until all agents have put the lab's cluster folder to work.
func (w *Lab) Applied(ctx context.Context) error { return w.AppliedBut(ctx, "") }

// AppliedBut is Applied where a node has no agent.
func (w *Lab) AppliedBut(ctx context.Context, dead string) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	late := ""
	for {
		want := agent.Revision(objects.Files([]string{filepath.Join(w.Status.Run, "source")}, nil))
		before := late
		late = ""
		for _, node := range w.Nodes() {
			if node == dead {
				continue
			}
			s, err := w.Agents[node].Status(ctx)
			if ctx.Err() != nil { // says nothing of the agent: what it said before does
				return fmt.Errorf("agents have not put the cluster to work: %s", cmp.Or(late, before, node+" has not been heard of"))
			}
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

// Address of a service in a family.
func (w *Lab) Address(t *testing.T, namespace, service string, six bool) netip.Addr {
	t.Helper()
	for _, s := range w.Status.Services {
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

// Client sends traffic.Streams from a pod until the returned function is called.
func (w *Lab) Client(t *testing.T, pod string, streams []traffic.Stream) (end func() traffic.Result) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var r traffic.Result
	var err error
	var running sync.WaitGroup
	running.Go(func() { r, err = w.Send(ctx, pod, streams) })
	t.Cleanup(func() { stop(); running.Wait() })
	return func() traffic.Result {
		t.Helper()
		stop()
		running.Wait()
		if err != nil {
			t.Error(err)
		}
		return r
	}
}

// Once sends one request from a pod.
func (w *Lab) Once(t *testing.T, pod string, s traffic.Stream) traffic.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), traffic.Timeout+Patience)
	defer cancel()
	r, err := w.Send(ctx, pod, []traffic.Stream{s})
	if err != nil {
		t.Error(err)
	}
	return r
}

// Send runs a client in a pod until its traffic.Streams end, or the context does.
func (w *Lab) Send(ctx context.Context, pod string, streams []traffic.Stream) (traffic.Result, error) {
	var r traffic.Result
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	in, err := json.Marshal(streams)
	if err != nil {
		return r, err
	}
	var out, problems bytes.Buffer
	_, err = lab.Exec(ctx, w.Name, pod, []string{"env", clientVariable + "=1", self}, lab.Stdio{In: bytes.NewReader(in), Out: &out, Err: &problems})
	if errors.Is(err, context.Canceled) {
		err = nil // it was told to end
	}
	if err = errors.Join(err, json.Unmarshal(out.Bytes(), &r)); err != nil {
		return r, fmt.Errorf("client in %s: %w: %s", pod, err, problems.String())
	}
	return r, nil
}
