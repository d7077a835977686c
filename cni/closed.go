// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// FailClosed says of whose pods none may run before the kernel has its policy.
type FailClosed string

const (
	// Governed are pods of namespaces in which something governs: a policy, or a default.
	Governed FailClosed = "governed"
	Always   FailClosed = "always"
	Never    FailClosed = "never"
)

// String implements flag.Value.
func (f FailClosed) String() string { return string(f) }

// Type names the flag's type.
func (f FailClosed) Type() string { return "always|governed|never" }

// Set implements flag.Value.
func (f *FailClosed) Set(s string) error {
	if got := FailClosed(s); got.Valid() {
		*f = got
		return nil
	}
	return fmt.Errorf("%q: want always, governed or never", s)
}

// Valid reports whether it is one of the three.
func (f FailClosed) Valid() bool { return slices.Contains([]FailClosed{Governed, Always, Never}, f) }

// Closed are the namespaces in which something governs, as an agent knew last.
type Closed struct {
	// Everywhere: something governs all namespaces.
	Everywhere bool `json:"everywhere"`
	// Namespaces in which something governs; sorted.
	Namespaces []string `json:"namespaces"`
	// Open are the namespaces of which it is known that they are not closed; sorted. One
	// that is in neither list is newer than the agent's knowledge, and closed.
	Open []string `json:"open,omitempty"`
}

// Equal reports whether both say the same.
func (c Closed) Equal(d Closed) bool {
	return c.Everywhere == d.Everywhere && slices.Equal(c.Namespaces, d.Namespaces) && slices.Equal(c.Open, d.Open)
}

// closedFile is the name of the file that an agent leaves in its state folder.
const closedFile = "closed.json"

// WriteClosed leaves what is closed for the plugin.
func WriteClosed(state string, c Closed) error {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return fmt.Errorf("write what is closed: %w", err)
	}
	if c.Namespaces == nil {
		c.Namespaces = []string{}
	}
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write what is closed: %w", err)
	}
	return ReplaceFile(filepath.Join(state, closedFile), append(text, '\n'), 0o644)
}

// ReadClosed is what an agent left.
func ReadClosed(state string) (Closed, error) {
	text, err := os.ReadFile(filepath.Join(state, closedFile))
	if err != nil {
		return Closed{}, fmt.Errorf("read what is closed: %w", err)
	}
	var c struct {
		Everywhere *bool
		Namespaces *[]string
		Open       []string
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return Closed{}, fmt.Errorf("read %s: %w", filepath.Join(state, closedFile), err)
	}
	if c.Everywhere == nil || c.Namespaces == nil {
		return Closed{}, fmt.Errorf("read %s: it is not whole", filepath.Join(state, closedFile))
	}
	return Closed{*c.Everywhere, *c.Namespaces, c.Open}, nil
}

// IsClosed reports whether pods of a namespace may not run unguarded, and why. Where
// nothing is known everything is closed: what governs may be what is not known.
func (c *Config) IsClosed(namespace string) (closed bool, why string) {
	switch {
	case slices.Contains(c.Exempt, namespace):
		return false, "the namespace is exempt"
	case c.FailClosed == Never:
		return false, "no namespace is fail-closed"
	case c.FailClosed == Always:
		return true, "every namespace is fail-closed"
	}
	all, err := ReadClosed(c.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, "no agent of this node has told yet which namespaces are fail-closed"
	case err != nil:
		return true, "which namespaces are fail-closed is not known: " + err.Error()
	case slices.Contains(all.Open, namespace):
		return false, "no policy governs the namespace, or it is observed"
	case all.Everywhere:
		return true, "policy governs every namespace"
	case slices.Contains(all.Namespaces, namespace):
		return true, "policy governs the namespace"
	}
	return true, "no agent of this node has told of the namespace yet, so that policy may govern it"
}
