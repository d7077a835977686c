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
			return fmt.Errorf("somebody has removed %s from the run folder, or the folder %s: this agent ends, so that the next one makes it anew; the kernel's programs and Envoy go on", Socket, dir)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
