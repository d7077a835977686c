// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/conformance/istio/istiod"
	"fairlead.io/fairlead/conformance/istio/ours"
	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// job is one scenario, as a file.
type job struct {
	Name string
	Text []byte
}

// Work takes scenarios and gives results until there are no more. The process must have
// namespaces of its own for network, mounts and processes.
func Work(in io.Reader, out io.Writer, envoy string) error {
	if err := isolate(); err != nil {
		return err
	}
	if err := wire.SetUp(); err != nil {
		return err
	}
	resolver, err := wire.NewResolver()
	if err != nil {
		return err
	}
	defer resolver.Close()
	echo, err := wire.NewEcho()
	if err != nil {
		return err
	}
	defer echo.Close()
	istio, err := istiod.New(envoy)
	if err != nil {
		return err
	}
	defer istio.Close()
	fairlead, err := ours.New(envoy)
	if err != nil {
		return err
	}
	defer fairlead.Close()
	enc := json.NewEncoder(out)
	for dec := json.NewDecoder(in); ; {
		var j job
		if err := dec.Decode(&j); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		s, err := world.FromArchive(j.Name, txtar.Parse(j.Text))
		r := Result{Scenario: j.Name, Verdict: Broken}
		if err != nil {
			r.Problem = err.Error()
		} else {
			resolver.Set(func(name string) (netip.Addr, bool) {
				a, err := s.World.Resolve(name, nil)
				return a, err == nil
			})
			r = steady(func() Result { return Run(istio, fairlead, echo, s) })
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// isolate gives the process its own view of processes, and the resolver that is about to
// be at 127.0.0.1.
func isolate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	f, err := os.CreateTemp("", "resolv")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString("nameserver 127.0.0.1\n"); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return fmt.Errorf("find resolv.conf: %w", err)
	}
	if err := unix.Mount(f.Name(), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount resolv.conf: %w", err)
	}
	return nil
}
