// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// DefaultUID is the user that Envoy runs as if the proxy is root. It needs no
// name; it owns nothing but Envoy's folder and may connect to the sockets.
const DefaultUID = 15099

// Banks is how many Envoys a node may run at a time: the one that serves, and one
// that takes over from it, that it took over from, or that stands by. Each has its
// own admin socket, log and ports.
const Banks = 2

// Paths are the files of a node's proxy. Sockets have short names: a unix
// socket's path has at most 107 bytes.
type Paths struct {
	Feed      string        // the agent's delta ADS socket
	XDS       [Banks]string // the proxy's, for the Envoy in a bank
	Authority [Banks]string // the proxy's, where the Envoy asks whom an authority means
	AccessLog string        // the agent's access log socket
	// Control is a link to the control socket of the proxy in charge, for its status and
	// for requests to it. Own is the control socket of the proxy in this process's pid
	// namespace.
	Control, Own string
	State        string        // resources accepted last
	GivenBack    string        // there: the node is no installation's, and State nobody's
	Banks        string        // which of two Envoys serves
	Envoy        string        // folder that Envoy may write to
	Admin        [Banks]string // an Envoy's own socket, by bank
	Log          [Banks]string // an Envoy's, by bank
	Lock         string        // held by the proxy in charge
	BankLock     [Banks]string // held by a proxy that uses the bank, and by its Envoy
	OwnLock      string        // held by the proxy in this process's pid namespace
}

// PathsIn are the files under a run folder.
func PathsIn(dir string) Paths {
	in := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	p := Paths{
		Feed:      in("feed.sock"),
		AccessLog: in("als.sock"),
		Control:   in("proxy.sock"),
		Own:       in(fmt.Sprintf("proxy-%d.sock", pidNamespace())),
		OwnLock:   in(fmt.Sprintf("proxy-%d.lock", pidNamespace())),
		State:     in("proxy-state"),
		GivenBack: in("given-back"),
		Banks:     in("proxy-banks"),
		Envoy:     in("envoy"),
		Lock:      in("proxy.lock"),
	}
	for bank := range Banks {
		p.XDS[bank] = in(fmt.Sprintf("xds-%d.sock", bank))
		p.Authority[bank] = in(fmt.Sprintf("authority-%d.sock", bank))
		p.BankLock[bank] = in(fmt.Sprintf("bank-%d.lock", bank))
		p.Admin[bank] = in("envoy", fmt.Sprintf("admin-%d.sock", bank))
		p.Log[bank] = in("envoy", fmt.Sprintf("envoy-%d.log", bank))
	}
	return p
}

// Listen makes a unix socket that only its owner and uid may connect to, in
// place of one that a process of before left. uid < 0: the owner only. Closing the
// listener leaves the file.
func Listen(path string, uid int) (net.Listener, error) {
	// Made in a closed folder and moved: nobody connects before it is theirs, and
	// there is no moment without a socket.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o600)
	if err == nil && uid >= 0 && uid != os.Geteuid() {
		err = os.Chown(tmp, uid, -1)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// maxSocketPath is the longest path of a unix socket.
const maxSocketPath = 107

// prepare makes the folders, and checks that Envoy's user can get to them: a
// socket that it cannot reach looks to Envoy like a server that is down.
func prepare(dir string, p Paths, uid int) error {
	if len(p.Own) > maxSocketPath || len(p.Authority[0]) > maxSocketPath {
		return fmt.Errorf("run folder %s: path too long: sockets in it may have %d bytes", dir, maxSocketPath)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	if err := os.MkdirAll(p.Envoy, 0o770); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	if uid == os.Geteuid() {
		return nil
	}
	if err := give(p.Envoy, uid); err != nil {
		return fmt.Errorf("give %s to user %d: %w", p.Envoy, uid, err)
	}
	if d, err := closedTo(dir, uid); err != nil {
		return fmt.Errorf("check run folder: %w", err)
	} else if d != "" {
		return fmt.Errorf("run folder %s: Envoy's user %d cannot pass %s; allow it (chmod o+x), or choose another folder", dir, uid, d)
	}
	return nil
}

// give makes a folder another user's, but one that the caller's group may use: without
// the right to disregard permissions, root has no other way into it.
func give(dir string, uid int) error {
	const mode = 0o770
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != mode {
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	if owner(info) == uid {
		return nil
	}
	return os.Chown(dir, uid, -1)
}

// closedTo is the folder on the way to dir that a user with neither ownership nor
// group cannot pass; "" if there is none.
func closedTo(dir string, uid int) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 && uid != os.Geteuid() {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", nil
		}
	}
}
