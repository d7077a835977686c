// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// folderPoll is how often the run folder is looked at.
const folderPoll = time.Second

// errRemoved says that the run folder, or what is in it, was removed.
var errRemoved = errors.New("this agent ends, so that the next one makes it anew; the kernel's programs and Envoy go on")

// leaveFolder makes the run folder for the next agent, with the ports that Envoy's listeners
// have: it goes on with them, as over any other end. kernel leaves what the node had before.
func (a *agent) leaveFolder(kernel func() error) {
	a.ports.unsaved = true
	if err := os.MkdirAll(a.opts.RunDir, 0o755); err != nil {
		a.log.Error("nothing is left to the next agent", "error", err)
		return
	}
	if err := errors.Join(a.ports.flush(), kernel()); err != nil {
		a.log.Error("not all is left to the next agent", "error", err)
	}
}

// keepFolder returns an error if somebody has removed the agent's socket, which is there by
// then, or the run folder with it. Nobody could ask this agent any more, and no proxy that
// is started could find it; the next one makes all of it anew, and until it runs kernel and
// Envoy go on.
func keepFolder(ctx context.Context, dir string, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for seen := false; ; {
		_, err := os.Lstat(filepath.Join(dir, Socket))
		seen = seen || err == nil
		if seen && errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("somebody has removed %s from the run folder, or the folder %s: %w", Socket, dir, errRemoved)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
