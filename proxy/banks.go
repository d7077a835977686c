// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// roles is what the next process must know of the Envoys that it finds. It is
// written before it comes true: the next process makes it true again.
type roles struct {
	Active int  `json:"active"`          // the bank that new connections go to
	Other  Role `json:"other,omitempty"` // what the Envoy in the other bank is for
}

func saveRoles(path string, r roles) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save bank: %w", err)
	}
	return nil
}

// loadRoles reads what saveRoles wrote. Without a file it is bank 0, as at the
// very first start.
func loadRoles(path string) (roles, error) {
	var r roles
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Active < 0 || r.Active >= Banks) {
		err = fmt.Errorf("no bank %d", r.Active)
	}
	if err != nil {
		return roles{}, fmt.Errorf("read bank from %s: %w", path, err)
	}
	return r, nil
}

// replaceFile writes a file whole or not at all. Of each file there is one writer, so
// that one name is enough for what is not whole yet: what a killed process leaves does
// not pile up.
func replaceFile(path string, parts ...[]byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(next) // gone already if all went well
	for _, b := range parts {
		if err == nil {
			_, err = f.Write(b)
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
