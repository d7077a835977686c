// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Names below a run folder.
const (
	// Folder holds the records.
	Folder = "cni"
	// Socket is where an agent answers.
	Socket = "cni.sock"
)

// ID names an attachment: a container's interface.
type ID struct {
	Container string `json:"container"`
	IfName    string `json:"ifName"`
}

// idPattern is what the specification says of a container's id; part is the same for an
// interface's name, which the kernel holds to less than this.
var (
	idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,199}$`)
	part      = regexp.MustCompile(`^[a-zA-Z0-9@_.\-]{1,15}$`)
)

// Valid reports whether the id can name a file.
func (i ID) Valid() bool { return idPattern.MatchString(i.Container) && part.MatchString(i.IfName) }

func (i ID) file() string { return i.Container + "." + i.IfName + ".json" }

// Record is what a plugin was told of an attachment, and what it saw.
type Record struct {
	ID
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid,omitempty"` // as the runtime has it; "" if that does not say
	Addresses []netip.Addr `json:"addresses"`     // sorted
	Link      Link         `json:"link"`
	At        time.Time    `json:"at"`
}

// Link is where the pod's interface ends on the node. Zero: it has no end there.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Cookie of the pod's network namespace.
	Cookie uint64 `json:"cookie"`
}

// Key is "namespace/pod".
func (r Record) Key() string { return r.Namespace + "/" + r.Pod }

func (r Record) validate() error {
	switch {
	case !r.ID.Valid():
		return fmt.Errorf("container %q and interface %q: want an id and a name as the CNI specification has them", r.Container, r.IfName)
	case r.Namespace == "" || r.Pod == "":
		return errors.New("it names no pod")
	case len(r.Addresses) == 0 || slices.ContainsFunc(r.Addresses, func(a netip.Addr) bool { return !a.IsValid() }):
		return errors.New("it has no addresses")
	}
	return nil
}

// Write puts a record into a run folder, in place of an earlier one of its attachment.
func Write(run string, r Record) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	dir := filepath.Join(run, Folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return ReplaceFile(filepath.Join(dir, r.ID.file()), text, 0o600)
}

// Remove takes an attachment's record away, if there is one.
func Remove(run string, id ID) error {
	if !id.Valid() {
		return nil // none was written
	}
	if err := os.Remove(filepath.Join(run, Folder, id.file())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}

// Read is the record of an attachment; fs.ErrNotExist if there is none.
func Read(run string, id ID) (Record, error) {
	if !id.Valid() {
		return Record{}, fmt.Errorf("read record of %q: %w", id.Container, fs.ErrNotExist)
	}
	return readRecord(filepath.Join(run, Folder, id.file()))
}

func readRecord(path string) (Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	r, err := parseRecord(text)
	if err != nil {
		return Record{}, fmt.Errorf("read record %s: %w", path, err)
	}
	return r, nil
}

func parseRecord(text []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, err
	}
	return r, r.validate()
}

// ReadAll are the records of a run folder, oldest first. What cannot be read is passed
// over and told of by the error, beside the records.
func ReadAll(run string) ([]Record, error) {
	files, err := os.ReadDir(filepath.Join(run, Folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var out []Record
	var bad []error
	for _, f := range files {
		if !isRecord(f.Name()) {
			continue
		}
		r, err := readRecord(filepath.Join(run, Folder, f.Name()))
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, fs.ErrNotExist): // else it went meanwhile
			bad = append(bad, err)
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.file(), b.file())
	})
	return out, errors.Join(bad...)
}

func isRecord(name string) bool {
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(name, ".")
}

// Keep removes the records of all attachments but these, which are all that there are.
func Keep(run string, valid []ID) error {
	keep := map[string]bool{}
	for _, id := range valid {
		keep[id.file()] = true
	}
	files, err := os.ReadDir(filepath.Join(run, Folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list records: %w", err)
	}
	var errs []error
	for _, f := range files {
		if isRecord(f.Name()) && !keep[f.Name()] {
			if err := os.Remove(filepath.Join(run, Folder, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// ReplaceFile makes a file have a content, whole or not at all. Those who read the folder
// meanwhile see no other name that they would take for one of theirs.
func ReplaceFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".fairlead-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
