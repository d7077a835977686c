// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"fairlead.io/fairlead/translators/objects"
)

// A change is taken up when nothing more has come for settle, or after settleMax
// of steady changes.
const (
	settle    = 20 * time.Millisecond
	settleMax = 500 * time.Millisecond
	// lookAgain is how often it is checked that the folder is still the one that is
	// watched: nothing tells of one that comes back.
	lookAgain = time.Second
)

// mounted is the link that Kubernetes exchanges when a mounted configuration changes.
const mounted = "..data"

// watchFolder calls changed once at the start and then after every change below
// the folder, until the context ends; also when the folder goes, and when there is
// one again. Files whose name starts with a dot are somebody's work in progress and
// wake nobody.
func watchFolder(ctx context.Context, log *slog.Logger, dir string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer w.Close()
	watched, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	if err := watchBelow(w, dir); err != nil {
		return err
	}
	changed()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var quiet, late <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return fmt.Errorf("watch %s: the watcher ended", dir)
			}
			if base := filepath.Base(e.Name); strings.HasPrefix(base, ".") && base != mounted {
				continue
			}
			if e.Has(fsnotify.Create) {
				if err := watchBelow(w, e.Name); err != nil {
					log.Warn("cannot watch folder", "path", e.Name, "error", err)
				}
			}
			quiet = time.After(settle)
			if late == nil {
				late = time.After(settleMax)
			}
		case err := <-w.Errors:
			// Events were lost; the folder is read whole, so one more reading is enough.
			log.Warn("folder watch lost events", "path", dir, "error", err)
			quiet = time.After(settle)
		case <-again.C:
			now, err := os.Stat(dir)
			// A new folder may have the number of the old one; then the watch has ended.
			same := err == nil && watched != nil && os.SameFile(now, watched) && slices.Contains(w.WatchList(), filepath.Clean(dir))
			if same || err != nil && watched == nil {
				continue
			}
			if watched = rewatch(w, dir, now, log); watched != nil || err != nil {
				quiet = time.After(settle)
			}
		case <-quiet:
			quiet, late = nil, nil
			changed()
		case <-late:
			quiet, late = nil, nil
			changed()
		}
	}
}

// rewatch watches a folder that has come in place of another; nil if it has not, or
// cannot be watched yet.
func rewatch(w *fsnotify.Watcher, dir string, now os.FileInfo, log *slog.Logger) os.FileInfo {
	for _, p := range w.WatchList() {
		_ = w.Remove(p) // gone already, as likely as not
	}
	if now == nil {
		return nil
	}
	if err := watchBelow(w, dir); err != nil {
		log.Warn("cannot watch folder", "path", dir, "error", err)
		return nil
	}
	return now
}

// watchBelow adds a folder and every folder in it, also behind links; a path that is not
// a folder, or is gone again, is none.
func watchBelow(w *fsnotify.Watcher, root string) error {
	for _, path := range objects.Folders(root) {
		if err := w.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("watch %s: %w", path, err)
		}
	}
	return nil
}
