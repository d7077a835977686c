// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// What is gone from the run folder is told again after this time.
const tellAgain = 30 * time.Second

// watchFolder tells if somebody has removed the run folder, or the sockets in it. What is
// connected stays connected: Envoy serves, and takes changes. But nobody who comes anew
// finds them, so that only a restart mends it.
func (p *proxy) watchFolder(ctx context.Context) {
	var told time.Time
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, err := os.Lstat(p.paths.Own); !errors.Is(err, fs.ErrNotExist) || time.Since(told) < tellAgain {
			continue
		}
		told = time.Now()
		p.log.Error("the run folder, or the sockets in it, were removed: envoy serves on, and takes changes, but nobody can ask this proxy, and no envoy can be started. Restart the proxy, and the agent, when the folder may stay", "folder", p.opts.RunDir)
	}
}
