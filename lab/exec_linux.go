// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Exec runs a command in a pod: in its network, DNS, cgroup and environment. The
// pod is NAMESPACE/NAME, NAME where that is clear, or a Deployment's name for the
// first of its pods that is ready; node/NODE and outside are places too. It
// returns the command's exit code; 128 and the signal's number if it was killed.
func Exec(ctx context.Context, name, target string, command []string, io Stdio) (int, error) {
	if len(command) == 0 {
		return 0, errors.New("no command to run")
	}
	r, err := loadRecord(cmp.Or(name, DefaultName))
	if err != nil {
		return 0, err
	}
	l := &lab{paths: pathsOf(r.Name), record: r}
	place, env, err := l.target(target)
	if err != nil {
		return 0, err
	}
	cmd := l.command(ctx, place, env, command...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.In, io.Out, io.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run %s in %s: %w", command[0], target, err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("run %s in %s: %w", command[0], target, err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// target finds a place by what a user calls it, and the environment of what runs
// there.
func (l *lab) target(name string) (place string, env []string, err error) {
	if node, ok := strings.CutPrefix(name, "node/"); ok && slices.Contains(l.record.Nodes, node) {
		return node, nil, nil
	}
	if name == outsidePlace {
		return outsidePlace, nil, nil
	}
	p, err := l.find(name)
	if err != nil {
		return "", nil, err
	}
	if len(p.Programs) > 0 {
		if env, err = podEnv(p.Pod, p.Programs[0]); err != nil {
			return "", nil, err
		}
	}
	return podPlace(p.Pod), env, nil
}

// find finds a pod by NAMESPACE/NAME, by NAME, or by its workload in place of NAME.
func (l *lab) find(name string) (*pod, error) {
	namespace, short, found := strings.Cut(name, "/")
	if !found {
		namespace, short = "", name
	}
	var named, owned []*pod
	for _, p := range l.record.Pods {
		if namespace != "" && p.Namespace != namespace {
			continue
		}
		if p.Name == short {
			named = append(named, p)
		}
		if p.Workload == short {
			owned = append(owned, p)
		}
	}
	slices.SortStableFunc(owned, func(a, b *pod) int { return readyFirst(b) - readyFirst(a) })
	among := map[string]bool{}
	for _, p := range slices.Concat(named, owned) {
		among[p.Namespace] = true
	}
	switch {
	case len(among) == 0:
		return nil, fmt.Errorf("lab %s has no pod %s; it has %s", l.record.Name, name, l.podNames())
	case len(among) > 1:
		return nil, fmt.Errorf("pods of several namespaces are called %s: say NAMESPACE/%s", short, short)
	}
	return slices.Concat(named, owned)[0], nil
}

func readyFirst(p *pod) int {
	if p.Ready {
		return 1
	}
	return 0
}

func (l *lab) podNames() string {
	var out []string
	for _, p := range l.record.Pods {
		out = append(out, p.Key())
	}
	return cmp.Or(strings.Join(out, ", "), "none")
}

// Logs writes what a pod's programs, or with node/NODE the node's processes,
// printed, and with follow what they go on to print until the context ends.
func Logs(ctx context.Context, name, target string, follow bool, out io.Writer) error {
	r, err := loadRecord(cmp.Or(name, DefaultName))
	if err != nil {
		return err
	}
	l := &lab{paths: pathsOf(r.Name), record: r}
	var files []string
	if node, ok := strings.CutPrefix(target, "node/"); ok && slices.Contains(r.Nodes, node) {
		for _, what := range l.daemonNames() {
			files = append(files, r.Daemons[node+"/"+what].Log)
		}
	} else {
		p, err := l.find(target)
		if err != nil {
			return err
		}
		for _, x := range p.Processes {
			files = append(files, x.Log)
		}
	}
	read := make([]int64, len(files))
	for {
		for i, f := range files {
			n, err := copyFrom(f, read[i], out)
			if err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			read[i] += n
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// copyFrom copies a file from an offset, as far as its last whole line.
func copyFrom(file string, offset int64, out io.Writer) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<40))
	if err != nil {
		return 0, err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	n, err := out.Write(b)
	return int64(n), err
}
