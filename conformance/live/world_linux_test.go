// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
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

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/translators/objects"
)

// labName is the lab of this run: several may run at once.
var labName = labPrefix + strconv.Itoa(os.Getpid())

const labPrefix = "conformance-"

// removeStale removes the labs of runs that died.
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

// world is the lab, with what the tests want to know of it.
type world struct {
	dir    string // of what was built
	run    string // of the lab
	agents map[string]*agent.Client
	empty  map[string]left // what the nodes have when nothing is in the lab
	mu     sync.Mutex
	status *lab.Status
	// leave ends the server outside.
	leave func()
}

var (
	theWorld *world
	upOnce   sync.Once
	upError  error
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	flag.Parse()
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		// A run that is out of time panics, and nothing of it is called any more.
		limit := 24 * time.Hour
		if f, ok := flag.Lookup("test.timeout").Value.(flag.Getter); ok {
			if d, ok := f.Get().(time.Duration); ok && d > 0 {
				limit = d - 20*time.Second
			}
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
		case <-time.After(limit):
		}
		fmt.Fprintln(os.Stderr, "conformance: interrupted, or out of time: removing the lab")
		if err := down(); err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
		}
		os.Exit(1)
	})
	code := m.Run()
	close(ended)
	watch.Wait()
	stop()
	if err := down(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = 1
	}
	os.Exit(code)
}

// down removes the lab and looks whether anything of it is left.
func down() error {
	if theWorld == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if theWorld.leave != nil {
		theWorld.leave()
	}
	return errors.Join(lab.Down(ctx, labName), os.RemoveAll(theWorld.dir), leftovers(filepath.Join(lab.Root, labName)))
}

// leftovers looks for mounts, files and processes of a lab that is gone.
func leftovers(run string) error {
	var errs []error
	if _, err := os.Stat(run); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("%s is still there", run))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), run) {
		errs = append(errs, fmt.Errorf("something is still mounted below %s, or not: %w", run, err))
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		errs = append(errs, err)
	}
	for _, file := range lines {
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), run) {
			errs = append(errs, fmt.Errorf("%s still runs: %s", filepath.Dir(file), strings.ReplaceAll(string(b), "\x00", " ")))
		}
	}
	return errors.Join(errs...)
}

// lives returns the lab, putting it up for the first test that needs it.
func lives(t *testing.T) *world {
	t.Helper()
	need.Root(t)
	envoy := need.Envoy(t)
	upOnce.Do(func() { upError = up(envoy) })
	if upError != nil {
		t.Fatal(upError)
	}
	return theWorld
}

func up(envoy string) error {
	dir, err := os.MkdirTemp("", "fairlead-conformance-")
	if err != nil {
		return err
	}
	w := &world{dir: dir, agents: map[string]*agent.Client{}}
	theWorld = w
	bin := filepath.Join(dir, "fairlead")
	if out, err := exec.Command("go", "build", "-o", bin, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		return fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := removeStale(ctx); err != nil {
		return err
	}
	if w.status, err = lab.Up(ctx, lab.Options{Name: labName, Nodes: 2, Binary: bin, EnvoyPath: envoy, Out: os.Stderr}); err != nil {
		return fmt.Errorf("put up lab: %w", err)
	}
	w.run = w.status.Run
	for _, n := range w.status.Nodes {
		w.agents[n.Name] = agent.NewClient(filepath.Join(w.run, n.Name, agent.Socket))
	}
	if err := w.applied(ctx); err != nil {
		return err
	}
	if err := w.serveOutside(ctx); err != nil {
		return err
	}
	w.empty, err = w.left()
	return err
}

// serveOutside runs an echo server that is no part of the cluster.
func (w *world) serveOutside(ctx context.Context) error {
	running, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var output bytes.Buffer
	go func() {
		defer close(ended)
		// It ends when it is told to: what it says then is of no interest.
		_, _ = lab.Exec(running, labName, "outside", []string{"env", `FAIRLEAD_POD={"pod":"outside"}`, "echo-server",
			"--port=80=auto", "--port=81=auto", "--port=443=tls", "--port=8080=auto", "--port=9000=tcp"}, lab.Stdio{Out: &output, Err: &output})
	}()
	w.leave = func() { stop(); <-ended }
	for {
		results, err := w.request(ctx, "outside", []load.Request{{URL: "http://127.0.0.1"}, {URL: "tls://127.0.0.1:443"}, {URL: "tcp://127.0.0.1:9000"}})
		up := err == nil
		for _, r := range results {
			up = up && r.Answer != nil
		}
		switch {
		case up:
			return nil
		case ctx.Err() != nil:
			w.leave()
			return fmt.Errorf("server outside: %v, %+v: %s", err, results, output.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// apply takes manifests up and waits until every agent has put them to work.
func (w *world) apply(t *testing.T, files ...txtar.File) {
	t.Helper()
	w.change(t, lab.Apply, files)
	for _, p := range w.pods() {
		if !p.Ready {
			t.Fatalf("pod %s/%s: %s", p.Namespace, p.Name, p.State)
		}
	}
}

// delete takes them out again.
func (w *world) delete(t *testing.T, files ...txtar.File) {
	t.Helper()
	w.change(t, lab.Delete, files)
}

func (w *world) change(t *testing.T, verb func(context.Context, lab.Change) (*lab.Status, error), files []txtar.File) {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, f := range files {
		path := filepath.Join(dir, fmt.Sprintf("%02d-%s", i, f.Name))
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second) // not the test's: it ends before its cleanups
	defer cancel()
	s, err := verb(ctx, lab.Change{Name: labName, Files: paths, Out: &testLog{t: t}})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.status = s
	w.mu.Unlock()
	if err := w.applied(ctx); err != nil {
		t.Fatal(err)
	}
}

// testLog makes lines of what the lab says lines of the test's log.
type testLog struct{ t *testing.T }

func (l *testLog) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("is not in the lab")) { // gone with its namespace
		l.t.Logf("lab: %s", bytes.TrimSpace(b))
	}
	return len(b), nil
}

// applied waits until all agents have put the lab's cluster folder to work.
func (w *world) applied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		want := agent.Revision(objects.Files([]string{filepath.Join(w.run, "source")}, nil))
		late := ""
		for _, node := range w.nodes() {
			s, err := w.agents[node].Status(ctx)
			if err != nil {
				late = fmt.Sprintf("%s: %v", node, err)
			} else if s.Applied != want {
				late = fmt.Sprintf("%s: applied %s, read %s, want %s; problem: %s", node, s.Applied, s.Revision, want, s.Problem)
			}
		}
		if late == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("agents have not put the cluster to work: %s", late)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (w *world) nodes() []string {
	var out []string
	for _, n := range w.status.Nodes {
		out = append(out, n.Name)
	}
	return out
}

func (w *world) pods() []lab.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status.Pods
}

// pod finds a pod by NAME, WORKLOAD (its first pod), or NAMESPACE/ one of these.
func (w *world) pod(namespace, name string) (lab.PodStatus, error) {
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, rest
	}
	pods := w.pods()
	i := slices.IndexFunc(pods, func(p lab.PodStatus) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		i = slices.IndexFunc(pods, func(p lab.PodStatus) bool { return p.Namespace == namespace && p.Workload == name })
	}
	if i < 0 {
		return lab.PodStatus{}, fmt.Errorf("no pod %s in namespace %s", name, namespace)
	}
	return pods[i], nil
}

// address of a pod, a service or a node, as a host of a URL. form is "" or 4 for the
// IPv4 address, 6 for IPv6, mapped for IPv4 written as IPv6.
func (w *world) address(namespace, name, form string) (string, error) {
	addrs := w.addresses(namespace, name)
	for _, a := range addrs {
		switch {
		case a.Is4() && (form == "" || form == "4"):
			return a.String(), nil
		case a.Is4() && form == "mapped":
			return "[::ffff:" + a.String() + "]", nil
		case a.Is6() && form == "6":
			return "[" + a.String() + "]", nil
		}
	}
	return "", fmt.Errorf("no address of %s of the form %q among %v", name, form, addrs)
}

func (w *world) addresses(namespace, name string) []netip.Addr {
	w.mu.Lock()
	status := w.status
	w.mu.Unlock()
	if name == "outside" {
		return status.Outside
	}
	for _, n := range status.Nodes {
		if n.Name == name {
			return n.Addresses
		}
	}
	if service, ok := strings.CutPrefix(name, "service/"); ok {
		for _, s := range status.Services {
			if s.Namespace == namespace && s.Name == service {
				return s.Addresses
			}
		}
		return nil
	}
	p, err := w.pod(namespace, name)
	if err != nil {
		return nil
	}
	return p.Addresses
}
