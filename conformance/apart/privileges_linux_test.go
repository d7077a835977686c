// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/proxy"
)

// netAdmin is the bit of CAP_NET_ADMIN alone.
var netAdmin = fmt.Sprintf("%016x", uint64(1)<<unix.CAP_NET_ADMIN)

// privileges are what the kernel says that a process may do, in the words of the table of
// proxy/README.md.
func privileges(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		said[k] = strings.Join(strings.Fields(v), " ")
	}
	caps := func(which string) string {
		switch said[which] {
		case netAdmin:
			return "NET_ADMIN"
		case "0000000000000000":
			return "none"
		}
		return said[which]
	}
	out := map[string]string{
		"user":         said["Uid"],
		"group":        said["Gid"],
		"other groups": said["Groups"],
		"permitted":    caps("CapPrm"), "effective": caps("CapEff"), "inheritable": caps("CapInh"), "ambient": caps("CapAmb"),
		"no_new_privs": said["NoNewPrivs"],
	}
	for _, k := range []string{"user", "group"} { // real, effective, saved, of files
		if f := strings.Fields(out[k]); len(f) == 4 && len(slices.Compact(f)) == 1 {
			out[k] = f[0]
		}
	}
	return out
}

// listed is the table of proxy/README.md: what an Envoy has, and what of it.
func listed(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "proxy", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n| an Envoy has | | why |\n|---|---|---|\n")
	if !ok {
		t.Fatal("proxy/README.md has no table of what an Envoy has")
	}
	out := map[string]string{}
	for line := range strings.Lines(rest) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 {
			break
		}
		out[strings.TrimSpace(cells[0])] = strings.TrimSpace(cells[1])
	}
	return out
}

// testPrivileges compares what an Envoy has with the list.
func testPrivileges(t *testing.T, what string, pid, uid int) {
	t.Helper()
	has := privileges(t, pid)
	want := listed(t)
	if len(want) < len(has) {
		t.Errorf("the list has %d rows, want %d or more: %v", len(want), len(has), want)
	}
	for k, v := range has {
		w, ok := want[k]
		w = strings.ReplaceAll(w, "15099 + slot", strconv.Itoa(uid))
		if k == "other groups" && w == "none" {
			w = ""
		}
		if !ok || v != w {
			t.Errorf("%s: %s is %q, listed is %q", what, k, v, w)
		}
	}
}

// testSockets looks which unix sockets an Envoy has open that have a name: its own folder's.
func testSockets(t *testing.T, what string, pid int, own proxy.Paths) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 8 {
			names["socket:["+f[6]+"]"] = f[7]
		}
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("%s: no descriptors, %v", what, err)
	}
	files, sockets := 0, 0
	may := []string{own.Admin[0], own.Admin[1]}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil {
			continue // closed meanwhile
		}
		switch {
		case names[to] != "":
			sockets++
			if !slices.Contains(may, names[to]) {
				t.Errorf("%s has the socket %s open", what, names[to])
			}
		case strings.HasPrefix(to, "/"):
			files++
			dir := filepath.Dir(own.Feed)
			if !strings.HasPrefix(to, dir+"/envoy/") && !strings.HasPrefix(to, filepath.Join(dir, "bank-")) &&
				!strings.HasPrefix(to, filepath.Join(dir, "envoy-start-")) && to != "/dev/null" && !isBinary(to) {
				t.Errorf("%s has %s open", what, to)
			}
		}
	}
	if files == 0 || sockets == 0 {
		t.Errorf("%s: %d files and %d sockets with names are open: nothing was looked at", what, files, sockets)
	}
}

// isBinary: what it was started from.
func isBinary(path string) bool {
	return filepath.Base(path) == "envoy" || filepath.Base(path) == "strict"
}
