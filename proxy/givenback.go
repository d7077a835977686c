// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// GiveBack has no proxy of a run folder go on with what was accepted before, as the node is
// given back: the next installation may mean something else. A proxy that has not ended yet
// does not save it again. TakeUp ends that.
func GiveBack(run string) error {
	if _, err := os.Stat(run); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range append([]string{run}, ownDirs(run)...) {
		p := PathsIn(dir)
		if err := os.WriteFile(p.GivenBack, nil, 0o600); err != nil {
			return fmt.Errorf("forget the proxy's state: %w", err)
		}
		if err := forget(p); err != nil {
			return err
		}
	}
	if err := os.Remove(ownFile(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end namespaces' proxies: %w", err)
	}
	return nil
}

// TakeUp is for an agent that starts: what proxies accept from now on is worth keeping. What
// one has kept that was about to end meanwhile is not.
func TakeUp(run string) error {
	for _, dir := range append(ownDirs(run), run) {
		p := PathsIn(dir)
		if !p.isGivenBack() {
			continue
		}
		if err := forget(p); err != nil {
			return err
		}
		if err := os.Remove(p.GivenBack); err != nil {
			return fmt.Errorf("take the node up: %w", err)
		}
	}
	return nil
}

func forget(p Paths) error {
	if err := os.Remove(p.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the proxy's state: %w", err)
	}
	return nil
}

func (p Paths) isGivenBack() bool {
	_, err := os.Lstat(p.GivenBack)
	return err == nil
}
