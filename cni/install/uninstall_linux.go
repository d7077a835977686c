// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairlead.io/fairlead/cni"
)

func (o Options) place() cni.Place { return cni.Place{ConfDir: o.ConfDir, BinDir: o.BinDir} }

// Uninstall takes the plugin out of every configuration, and away; also where it was put
// by somebody who was told of other folders. What it has changed is as it was before; what
// others have changed since stays. A plugin of another run folder is another installation's.
func Uninstall(o Options) (changed []string, err error) {
	places, err := cni.Places(o.Config.RunDir)
	errs := []error{err}
	if o.ConfDir != "" {
		places = append([]cni.Place{o.place()}, places...)
	}
	others := false
	for _, p := range places {
		did, other, err := o.leave(p, cni.Place{})
		changed = append(changed, did...)
		others = others || other
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil || others || o.Config.RunDir == "" {
		return changed, err
	}
	records := filepath.Join(o.Config.RunDir, cni.Folder) // the plugin takes none away any more
	if _, err := os.Lstat(records); err != nil {
		return changed, nil
	}
	if err := os.RemoveAll(records); err != nil {
		return changed, fmt.Errorf("take the plugin away: %w", err)
	}
	return append(changed, records), nil
}

// leaveFormer takes the plugin out of the places that are recorded and are not its own.
func (o Options) leaveFormer() (changed []string, err error) {
	places, err := cni.Places(o.Config.RunDir)
	errs := []error{err}
	for _, p := range places {
		if p == o.place() {
			continue
		}
		did, _, err := o.leave(p, o.place())
		changed = append(changed, did...)
		if err != nil {
			err = fmt.Errorf("the plugin is still where it was put before: %w", err)
		}
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

// leave takes the plugin away from a place, and then forgets that. What it has in common
// with one that is kept stays. others: another installation's plugin is there.
func (o Options) leave(p, keep cni.Place) (changed []string, others bool, err error) {
	conf, err := o.reach(p.ConfDir)
	if err == nil && !sameFolder(conf, keep.ConfDir) {
		if changed, others, err = takeOut(conf, o.Config.RunDir); err == nil && !others {
			changed, err = remove(changed, filepath.Join(conf, cni.StateName))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without one the node has no runtime there
		return o.named(changed), others, err
	}
	bin, err := o.reach(p.BinDir)
	if err == nil && !others && !sameFolder(bin, keep.BinDir) { // others may call it
		changed, err = remove(changed, filepath.Join(bin, cni.Type))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o.named(changed), others, err
	}
	if o.Config.RunDir != "" {
		err = cni.RemovePlace(o.Config.RunDir, p)
	} else {
		err = nil
	}
	return o.named(changed), others, err
}

// takeOut takes the plugin out of the configurations of a folder.
func takeOut(dir, run string) (changed []string, others bool, err error) {
	names, ours, err := configurations(dir)
	if err != nil {
		return nil, false, err
	}
	var errs []error
	for _, n := range names {
		path := filepath.Join(dir, n)
		if filepath.Ext(n) != ".conflist" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(cni.Type)) {
			continue
		}
		if is, err := runDirIn(text); err == nil && is != run {
			others = true
			continue
		}
		did, err := edit(path, Remove)
		for tries := 0; errors.Is(err, errChanged) && tries < 10; tries++ {
			time.Sleep(settle)
			did, err = edit(path, Remove)
		}
		errs = append(errs, err)
		if did {
			changed = append(changed, path)
		}
	}
	for _, n := range ours {
		path := filepath.Join(dir, n)
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if is, err := runDirIn(text); err == nil && is != run {
			others = true
			continue
		}
		errs = append(errs, os.Remove(path))
		changed = append(changed, path)
	}
	return changed, others, errors.Join(errs...)
}

func remove(changed []string, path string) ([]string, error) {
	if _, err := os.Lstat(path); err != nil {
		return changed, nil
	}
	if err := os.RemoveAll(path); err != nil {
		return changed, fmt.Errorf("take the plugin away: %w", err)
	}
	return append(changed, path), nil
}

// reach is where this process has a folder of the node: under its own name, where a container
// was given it, or below the node's root. fs.ErrNotExist: the node has none.
func (o Options) reach(dir string) (string, error) {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return dir, nil
	}
	if o.NodeRoot == "" {
		return "", fmt.Errorf("look for %s: %w", dir, fs.ErrNotExist)
	}
	path, err := within(o.NodeRoot, dir)
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("%s cannot be reached from here: %w; give it to the agent, or take %s out of it by hand", dir, err, cni.Type)
	}
	return path, err
}

// named are paths as the node has them.
func (o Options) named(paths []string) []string {
	for i, p := range paths {
		if rest, ok := strings.CutPrefix(p, o.NodeRoot); ok && strings.HasPrefix(rest, "/") {
			paths[i] = rest
		}
	}
	return paths
}

// sameFolder reports whether both names are one folder's; by what it is, as one may be a
// link or another mount of the other.
func sameFolder(a, b string) bool {
	if b == "" {
		return false
	}
	ia, erra := os.Stat(a)
	ib, errb := os.Stat(b)
	if erra != nil || errb != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	return os.SameFile(ia, ib)
}

// within resolves a path as a process would that has another root: its links lead there,
// not to this process's own files.
func within(root, path string) (string, error) {
	done := ""
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = strings.TrimSuffix(filepath.Dir("/"+done), "/")
			continue
		}
		at := root + done + "/" + name
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done += "/" + name
			continue
		}
		if links++; links > 40 {
			return "", &fs.PathError{Op: "follow", Path: at, Err: syscall.ELOOP}
		}
		to, err := os.Readlink(at)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(to) {
			done = ""
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return root + done, nil
}
