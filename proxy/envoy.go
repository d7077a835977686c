// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// A log of more than this is started anew with the next Envoy.
	longestLog = 16 << 20
	drainPoll  = 100 * time.Millisecond
	// An Envoy that was asked to stop has this long.
	stopTime = 5 * time.Second
)

// process is a running Envoy.
type process struct {
	pid  int
	done chan struct{}          // closed when it has ended
	exit atomic.Pointer[string] // how; set before, if this process had started it
}

// startEnvoy runs an Envoy in a bank. It gets the bank's lock along, open: as long as it
// lives, whatever becomes of the proxy, nobody else uses the bank.
func startEnvoy(opts *Options, paths Paths, b *build, bank int, lock *os.File) (*process, error) {
	config, err := b.writeBootstrap(opts.RunDir, bank)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(paths.Log[bank]); err == nil && info.Size() > longestLog {
		if err := os.Remove(paths.Log[bank]); err != nil {
			return nil, fmt.Errorf("start envoy: %w", err)
		}
	}
	// Its user may have no way to the binary (a root user's cache, say), but may run
	// it by a descriptor. By a link, because the process is called by the last part
	// of this path.
	link := filepath.Join(paths.Envoy, "envoy")
	if err := os.Symlink("/proc/self/fd/3", link); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	cmd := &exec.Cmd{
		Path:       link,
		Args:       append([]string{b.name, "--config-path", config, "--log-path", paths.Log[bank]}, b.args...),
		ExtraFiles: []*os.File{b.file, lock},
		Dir:        "/",
		Env:        []string{}, // nothing of ours is Envoy's business
	}
	unprivileged(cmd, opts.UID)
	// Until it has opened its log, it complains here.
	if early, err := os.Create(earlyLog(opts.RunDir, bank)); err != nil {
		opts.Log.Warn("what envoy says before it has a log is not kept", "error", err)
	} else {
		defer early.Close()
		cmd.Stdout, cmd.Stderr = early, early
	}
	if err := manyFiles(); err != nil {
		opts.Log.Warn("envoy may run out of files", "error", err)
	}
	if err := startWithoutMore(cmd); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	if err := limitMemory(cmd.Process.Pid, opts.UID, opts.memoryNow()); err != nil {
		opts.Log.Error("envoy's memory is not bounded", "pid", cmd.Process.Pid, "error", err)
	}
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() { // ends with the process, whose end the supervisor waits for
		err := cmd.Wait()
		opts.Log.Info("envoy ended", "pid", p.pid, "bank", bank, "error", err)
		how := cmd.ProcessState.String() // "signal: killed", "exit status 1"
		p.exit.Store(&how)
		close(p.done)
	}()
	return p, nil
}

func earlyLog(runDir string, bank int) string {
	return filepath.Join(runDir, fmt.Sprintf("envoy-start-%d.log", bank))
}

// lastWords are the end of what an Envoy wrote before it had a log.
func lastWords(runDir string, bank int) string {
	b, err := os.ReadFile(earlyLog(runDir, bank))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[max(0, len(b)-300):]))
}

// stop ends an Envoy and returns when it is gone.
func (p *process) stop() {
	proc, err := os.FindProcess(p.pid)
	if err != nil {
		return
	}
	defer proc.Release()
	for _, signal := range []os.Signal{terminate, os.Kill} {
		if err := proc.Signal(signal); err != nil {
			break // it has ended
		}
		select {
		case <-p.done:
			return
		case <-time.After(stopTime):
		}
	}
	<-p.done
}

// drain lets clients finish, and returns when there was none for as long as quiet,
// or ctx or the process ended: clients are told to close with the next response,
// and connections are taken all the while.
func (p *process) drain(ctx context.Context, a *admin, quiet time.Duration) error {
	err := errors.Join(a.post(ctx, "/healthcheck/fail"), a.post(ctx, "/drain_listeners?graceful&skip_exit"))
	if err != nil {
		return err
	}
	busy := time.Now()
	for {
		if n, err := a.connections(ctx); err != nil || n > 0 {
			busy = time.Now()
		} else if time.Since(busy) >= quiet {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return nil
		case <-time.After(drainPoll):
		}
	}
}
