// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// An Envoy that lived this long did not crash at start: the next one starts
	// without a pause.
	stable      = 30 * time.Second
	firstPause  = 100 * time.Millisecond
	longestWait = 10 * time.Second
	// A log of more than this is started anew with the next Envoy.
	longestLog = 16 << 20
	drainPoll  = 100 * time.Millisecond
)

// envoy is a running Envoy.
type envoy struct {
	pid     int
	adopted bool          // started by an earlier proxy
	done    chan struct{} // closed when it has ended
}

// runner starts Envoy, or takes over one that runs, and keeps one running.
type runner struct {
	opts  Options
	paths Paths
	admin *http.Client

	bootstrap string // path; its name has the content's hash
}

func newRunner(opts Options, paths Paths) (*runner, error) {
	content, err := Bootstrap(opts.Node, paths)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	r := &runner{opts: opts, paths: paths}
	// The name is what a running Envoy is recognised by: its command line has it.
	r.bootstrap = filepath.Join(opts.RunDir, "envoy-"+hex.EncodeToString(sum[:6])+".json")
	old, err := filepath.Glob(filepath.Join(opts.RunDir, "envoy-*.json"))
	if err != nil {
		return nil, fmt.Errorf("look for bootstraps: %w", err)
	}
	for _, f := range old {
		if f != r.bootstrap {
			if err := os.Remove(f); err != nil {
				return nil, fmt.Errorf("remove old bootstrap: %w", err)
			}
		}
	}
	if err := os.WriteFile(r.bootstrap, content, 0o644); err != nil {
		return nil, fmt.Errorf("write bootstrap: %w", err)
	}
	r.admin = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", paths.Admin)
		},
	}}
	return r, nil
}

// adopt takes over the Envoy that an earlier proxy left, if it is what this one
// would start; any other that runs on the run folder is stopped.
func (r *runner) adopt(ctx context.Context) (*envoy, error) {
	left, err := findEnvoys(r.opts.RunDir)
	if err != nil {
		return nil, fmt.Errorf("look for a running Envoy: %w", err)
	}
	var mine *envoy
	for _, l := range left {
		e := &envoy{pid: l.pid, adopted: true, done: make(chan struct{})}
		if err := watch(l.pid, e.done); err != nil {
			continue // it has ended
		}
		if mine == nil && l.config == r.bootstrap && l.exe == r.opts.EnvoyPath && r.answers(ctx) {
			mine = e
			continue
		}
		r.opts.Log.Info("stopping an Envoy of another configuration", "pid", l.pid)
		r.drain(e)
		r.stop(e)
	}
	return mine, nil
}

// answers reports whether the Envoy on the admin socket is alive, ready or not.
func (r *runner) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		if _, err := r.info(ctx); err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// start runs a new Envoy.
func (r *runner) start() (*envoy, error) {
	if info, err := os.Stat(r.paths.Log); err == nil && info.Size() > longestLog {
		if err := os.Remove(r.paths.Log); err != nil {
			return nil, fmt.Errorf("start envoy: %w", err)
		}
	}
	cmd := exec.Command(r.opts.EnvoyPath,
		"--config-path", r.bootstrap,
		"--disable-hot-restart",
		"--drain-time-s", strconv.Itoa(int(r.opts.DrainTime.Round(time.Second)/time.Second)),
		"--log-level", "warning",
		// It warns of a deprecated field once per route.
		"--component-log-level", "misc:error",
		"--log-path", r.paths.Log,
	)
	if r.opts.Concurrency > 0 {
		cmd.Args = append(cmd.Args, "--concurrency", strconv.Itoa(r.opts.Concurrency))
	}
	cmd.Dir = "/"
	cmd.Env = []string{} // nothing of ours is Envoy's business
	unprivileged(cmd, r.opts.UID)
	// Envoy's user may have no way to the binary (a root user's cache, say), but
	// may run it by a descriptor.
	if d, err := closedTo(filepath.Dir(r.opts.EnvoyPath), r.opts.UID); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	} else if d != "" {
		f, err := os.Open(r.opts.EnvoyPath)
		if err != nil {
			return nil, fmt.Errorf("start envoy: %w", err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		// By a link, because the process is called by the last part of this path.
		cmd.Path = filepath.Join(r.paths.Envoy, "envoy")
		if err := os.Symlink("/proc/self/fd/3", cmd.Path); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("start envoy: %w", err)
		}
	}
	// Until it has opened its log, it complains here.
	early, err := os.OpenFile(filepath.Join(r.opts.RunDir, "envoy-start.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	defer early.Close()
	cmd.Stdout, cmd.Stderr = early, early
	if err := manyFiles(); err != nil {
		r.opts.Log.Warn("envoy may run out of files", "error", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	e := &envoy{pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() { // ends with the process, whose end run waits for
		err := cmd.Wait()
		r.opts.Log.Info("envoy ended", "pid", e.pid, "error", err)
		close(e.done)
	}()
	return e, nil
}

// run keeps an Envoy running until ctx ends, and then stops it. first is the one
// that was adopted, or nil; now is told of each.
func (r *runner) run(ctx context.Context, first *envoy, now func(*envoy)) error {
	pause := firstPause
	e := first
	if e != nil {
		r.opts.Log.Info("envoy taken over", "pid", e.pid)
	}
	for starts := 0; ; starts++ {
		began := time.Now()
		if e == nil {
			var err error
			if e, err = r.start(); err != nil && starts == 0 {
				return err
			} else if err != nil { // it could be started before: perhaps again soon
				r.opts.Log.Error("envoy not started", "error", err, "pause", longestWait)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(longestWait):
				}
				continue
			}
			r.opts.Log.Info("envoy started", "pid", e.pid)
		}
		now(e)
		select {
		case <-ctx.Done():
			r.drain(e)
			r.stop(e)
			now(nil)
			return nil
		case <-e.done:
		}
		now(nil)
		if time.Since(began) > stable {
			pause = 0
		}
		r.opts.Log.Warn("envoy is gone, starting another", "pid", e.pid, "pause", pause, "log", r.tail())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(max(2*pause, firstPause), longestWait)
		e = nil
	}
}

// tail is the end of what Envoy wrote before it had a log.
func (r *runner) tail() string {
	b, err := os.ReadFile(filepath.Join(r.opts.RunDir, "envoy-start.log"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[max(0, len(b)-300):]))
}

// drain lets clients finish: they are asked to close, for as long as there are any.
func (r *runner) drain(e *envoy) {
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.DrainTime)
	defer cancel()
	if err := r.post(ctx, "/drain_listeners?graceful&skip_exit"); err != nil {
		r.opts.Log.Warn("cannot drain envoy", "pid", e.pid, "error", err)
		return
	}
	for {
		if n, err := r.connections(ctx); err == nil && n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-e.done:
			return
		case <-time.After(drainPoll):
		}
	}
}

// connections is how many connections of clients are open.
func (r *runner) connections(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/stats?filter=^listener\\..*\\.downstream_cx_active$", nil)
	if err != nil {
		return 0, err
	}
	resp, err := r.admin.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	sum := 0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("read envoy's connections: %w", err)
		}
		if !strings.HasPrefix(name, "listener.admin.") && !strings.Contains(name, ".worker_") {
			sum += n
		}
	}
	return sum, lines.Err()
}

// stop ends an Envoy and returns when it is gone.
func (r *runner) stop(e *envoy) {
	p, err := os.FindProcess(e.pid)
	if err != nil {
		return
	}
	defer p.Release()
	for _, signal := range []os.Signal{terminate, os.Kill} {
		if err := p.Signal(signal); err != nil {
			return
		}
		select {
		case <-e.done:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (r *runner) post(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://envoy"+path, nil)
	if err != nil {
		return err
	}
	resp, err := r.admin.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// serverInfo is what we read of Envoy's own.
type serverInfo struct {
	Version string `json:"version"`
	State   string `json:"state"`
}

// info asks Envoy who it is.
func (r *runner) info(ctx context.Context) (serverInfo, error) {
	var info serverInfo
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/server_info", nil)
	if err != nil {
		return info, err
	}
	resp, err := r.admin.Do(req)
	if err != nil {
		return info, fmt.Errorf("ask envoy: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		return info, fmt.Errorf("ask envoy: %w", err)
	}
	// "<commit>/1.40.0/Clean/RELEASE/BoringSSL"
	if parts := strings.Split(info.Version, "/"); len(parts) > 1 {
		info.Version = parts[1]
	}
	return info, nil
}
