// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// A bank that another proxy has may be free soon; the proxy in charge keeps one free
// for this long when it is asked.
const (
	bankPoll = 100 * time.Millisecond
	roomTime = 10 * time.Second
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

// choose finds a bank for the Envoy that is to serve. The error is errHeld if other
// proxies have both.
func (s *supervisor) choose() (bank int, err error) {
	err = errHeld
	for _, bank := range []int{s.active, 1 - s.active} {
		if s.gens[bank] != nil {
			continue
		}
		if err = s.occupy(bank); err == nil {
			return bank, nil
		}
		if !errors.Is(err, errHeld) {
			break
		}
	}
	return 0, err
}

// occupy takes a bank that no other proxy has, nor an Envoy that one has left.
func (s *supervisor) occupy(bank int) error {
	if s.locks[bank] != nil {
		return nil
	}
	f, err := tryLock(s.paths.BankLock[bank])
	if errors.Is(err, errHeld) {
		return fmt.Errorf("take bank %d, which another proxy uses: %w", bank, err)
	}
	if err != nil {
		return fmt.Errorf("take bank %d: %w", bank, err)
	}
	s.locks[bank] = f
	return nil
}

// vacate gives back what is not used.
func (s *supervisor) vacate() {
	for bank, f := range s.locks {
		if f != nil && bank != s.active && s.gens[bank] == nil && s.restart[bank] == nil {
			s.shut(bank)
			f.Close()
			s.locks[bank] = nil
		}
	}
}

// makeRoom leaves the other bank to another proxy for a while.
func (s *supervisor) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = time.Now().Add(roomTime)
	bank := 1 - s.active
	s.stopTimer(bank)
	if g := s.gens[bank]; g != nil && g.role == Standby {
		s.end(g)
	}
	s.vacate()
}

// save writes the roles for the next process.
func (s *supervisor) save() {
	if !s.charge {
		return // the file tells of the one in charge
	}
	r := roles{Active: s.active}
	if g := s.gens[1-s.active]; g != nil {
		r.Other = g.role
	}
	if err := saveRoles(s.paths.Banks, r); err != nil {
		s.log.Error("bank not saved", "error", err)
	}
}
