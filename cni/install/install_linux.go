// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/cni"
)

// The folders that runtimes use by default.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// Options say where the plugin goes. The folders are the node's, under the names that it
// knows them by.
type Options struct {
	ConfDir string // of the network configurations
	BinDir  string // of the plugins
	Binary  string // the plugin's file, to be copied
	Config  cni.Config
	// OwnList puts a list of ours before the one in use, beside the plugin in it: it is there
	// when the node starts anew, whatever the list's owner writes before there is an agent.
	OwnList bool
	// NodeRoot is the node's root folder, for what is to be taken out of folders that this
	// process does not have under their names; "" if there is no other than its own.
	NodeRoot string
}

// StateDir is where the agent leaves what the plugin goes by without it.
func (o Options) StateDir() string { return filepath.Join(o.ConfDir, cni.StateName) }

// plugin is the plugin's own part of a configuration.
func (o Options) plugin() ([]byte, error) {
	c := o.Config
	c.Type, c.StateDir = cni.Type, o.StateDir()
	return json.Marshal(c)
}

// derived is how a list is called that is made of a configuration: before it in the order
// of names, so that the runtime takes it in its place.
const derived = ".00-fairlead.conflist"

func derivedName(conf string) string {
	return strings.TrimSuffix(conf, filepath.Ext(conf)) + derived
}

// Ensure puts the plugin where it is called: its file, and its part in the configuration
// that the runtime uses, which is the first by name. It returns that one's path, and
// whether something was changed. What it cannot understand it leaves as it is. Out of folders
// that it was put in before, by an agent that was told of others, it is taken.
func Ensure(o Options) (where string, changed bool, err error) {
	// First: whoever is to take it away must know of it.
	if err := cni.AddPlace(o.Config.RunDir, o.place()); err != nil {
		return "", false, err
	}
	if where, changed, err = o.ensure(); err != nil {
		return where, changed, err
	}
	left, err := o.leaveFormer()
	return where, changed || len(left) > 0, err
}

func (o Options) ensure() (where string, changed bool, err error) {
	if changed, err = copyBinary(o); err != nil {
		return "", false, err
	}
	plugin, err := o.plugin()
	if err != nil {
		return "", changed, err
	}
	names, ours, err := configurations(o.ConfDir)
	if err != nil {
		return "", changed, err
	}
	if len(names) == 0 {
		err := removeAll(o.ConfDir, ours)
		return "", changed, errors.Join(fmt.Errorf("there is no network configuration in %s yet: the cluster's CNI plugin has not come", o.ConfDir), err)
	}
	first := names[0]
	where = filepath.Join(o.ConfDir, first)
	text, err := os.ReadFile(where)
	if err != nil {
		return "", changed, fmt.Errorf("read network configuration: %w", err)
	}
	chain := Chain
	if filepath.Ext(first) == ".conflist" {
		did, err := edit(where, func(text []byte) ([]byte, error) { return Add(text, plugin) })
		changed = changed || did
		switch {
		case !o.OwnList && err != nil, errors.Is(err, errChanged):
			return "", changed, err
		case !o.OwnList:
			return where, changed, removeAll(o.ConfDir, ours)
		}
		if _, err := parseList(text); err != nil { // perhaps it is being written
			return "", changed, fmt.Errorf("%s: %w; the plugin is in use only as it was before", where, err)
		}
		chain = Add // also of what was not to be edited
	}
	list, err := chain(text, plugin)
	if err != nil {
		err = fmt.Errorf("%s: %w; the plugin is not in use", where, err)
		if filepath.Ext(first) == ".conflist" { // a copy of what was there before is not what is meant
			err = errors.Join(err, removeAll(o.ConfDir, ours))
		}
		return "", changed, err
	}
	where, did, err := o.put(first, list)
	if err != nil {
		return "", changed, err
	}
	return where, changed || did, removeAll(o.ConfDir, slices.DeleteFunc(ours, func(n string) bool { return n == filepath.Base(where) }))
}

// put writes the list that is made of a configuration, with its mode.
func (o Options) put(first string, list []byte) (where string, changed bool, err error) {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(filepath.Join(o.ConfDir, first)); err == nil {
		mode = info.Mode().Perm()
	}
	where = filepath.Join(o.ConfDir, derivedName(first))
	if had, err := os.ReadFile(where); err == nil && bytes.Equal(had, list) {
		return where, false, nil
	}
	return where, true, cni.ReplaceFile(where, list, mode)
}

// configurations lists the files that a runtime considers, in its order, apart from those
// that were derived.
func configurations(dir string) (names, ours []string, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("look for network configurations: %w", err)
	}
	for _, f := range files { // sorted
		switch filepath.Ext(f.Name()) {
		case ".conf", ".conflist", ".json":
			if f.IsDir() {
				continue
			}
			if strings.HasSuffix(f.Name(), derived) {
				ours = append(ours, f.Name())
			} else {
				names = append(names, f.Name())
			}
		}
	}
	return names, ours, nil
}

func removeAll(dir string, names []string) error {
	var errs []error
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// errChanged says that somebody has written a file meanwhile.
var errChanged = errors.New("it changes")

// edit exchanges a configuration for another version of it, whole, with its mode and its
// owner. What its owner writes meanwhile is not lost: then nothing is done.
func edit(path string, f func([]byte) ([]byte, error)) (changed bool, err error) {
	for range 10 {
		link, err := os.Readlink(path)
		if err != nil {
			break
		}
		if filepath.Base(link) != link && filepath.Dir(link) != filepath.Dir(path) {
			return false, fmt.Errorf("%s is a link to %s, which is not edited; the plugin is not in use", path, link)
		}
		path = filepath.Join(filepath.Dir(path), filepath.Base(link))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read network configuration: %w", err)
	}
	next, err := f(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w; the plugin is not in use", path, err)
	}
	if bytes.Equal(text, next) {
		return false, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("look at network configuration: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), ".fairlead-"+filepath.Base(path)+".tmp")
	if err := cni.ReplaceFile(tmp, next, info.Mode().Perm()); err != nil {
		return false, err
	}
	defer os.Remove(tmp)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(tmp, int(st.Uid), int(st.Gid)); err != nil {
			return false, fmt.Errorf("write network configuration: %w", err)
		}
	}
	return true, exchange(tmp, path, text)
}

// exchange has a file take the place of another one that has a content; if it has another
// one by then it stays.
func exchange(tmp, path string, content []byte) error {
	swap := func() error {
		return unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	}
	err := swap()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not on this file system
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			return fmt.Errorf("%s: %w", path, errChanged)
		}
		if err := os.Rename(tmp, path); err != nil {
			return fmt.Errorf("write network configuration: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("write network configuration %s: %w", path, err)
	}
	if was, err := os.ReadFile(tmp); err != nil || !bytes.Equal(was, content) {
		return errors.Join(fmt.Errorf("%s: %w", path, errChanged), swap())
	}
	return nil
}

// copyBinary brings the plugin's file to the node, as one step: a runtime may be starting
// it.
func copyBinary(o Options) (changed bool, err error) {
	content, err := os.ReadFile(o.Binary)
	if err != nil {
		return false, fmt.Errorf("read the plugin: %w", err)
	}
	to := filepath.Join(o.BinDir, cni.Type)
	if had, err := os.ReadFile(to); err == nil && bytes.Equal(had, content) {
		if info, err := os.Stat(to); err == nil && info.Mode().Perm() == 0o755 {
			return false, nil
		}
	}
	if err := os.MkdirAll(o.BinDir, 0o755); err != nil {
		return false, fmt.Errorf("copy the plugin: %w", err)
	}
	return true, cni.ReplaceFile(to, content, 0o755)
}

const (
	// settle is how long the configurations must be quiet before they are looked at.
	settle = 50 * time.Millisecond
	// lookAgain is how often they are looked at though nothing was heard.
	lookAgain = 10 * time.Second
	// lookOften is the same where nothing can be heard: the node has no inotify left.
	lookOften = time.Second
	// patience is the longest pause before the plugin is put in again where somebody takes
	// it out each time.
	patience = 30 * time.Second
)

// Keep holds the plugin in place until the context ends: who owns the configuration writes
// it anew now and then. say is told where it is, or why it is not, whenever that was looked
// at.
func Keep(ctx context.Context, o Options, say func(where string, err error)) error {
	events, watch, stop := watcher()
	defer stop()
	every := lookAgain
	if watch == nil {
		every = lookOften
	}
	again := time.NewTicker(every)
	defer again.Stop()
	pause := settle
	var last time.Time // when it was put in
	next := time.After(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if base := filepath.Base(e.Name); strings.HasPrefix(base, ".fairlead-") {
				continue
			}
			if next == nil {
				next = time.After(pause)
			}
		case <-again.C:
			if next == nil {
				next = time.After(0)
			}
		case <-next:
			next = nil
			if watch != nil {
				_ = watch(o.ConfDir) // if it has only now come, or was made anew
			}
			where, changed, err := Ensure(o)
			if errors.Is(err, errChanged) {
				next = time.After(settle)
				continue
			}
			switch {
			case changed && time.Since(last) < time.Minute:
				pause = min(2*pause, patience)
			case changed:
				pause = settle
			}
			if changed {
				last = time.Now()
			}
			say(where, err)
		}
	}
}

// watcher gives what is heard of folders that watch is called for; nil if nothing can be.
func watcher() (events <-chan fsnotify.Event, watch func(dir string) error, stop func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, nil, func() {}
	}
	go func() {
		for range w.Errors { // what went unheard is found when it is looked at again
		}
	}()
	return w.Events, w.Add, func() { _ = w.Close() }
}
