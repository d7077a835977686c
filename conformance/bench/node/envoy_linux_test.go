// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/proxy"
)

// envoy is an Envoy that runs.
type envoy struct {
	b    *testing.B
	pid  int
	sock string // of its admin interface
}

// run starts an Envoy as the product does, with this bootstrap. It ends with the
// benchmark at the latest.
func run(b *testing.B, config, adminSocket string) (*envoy, *exec.Cmd) {
	b.Helper()
	// The binary may lie where its user may not go, such as root's cache.
	binary, err := os.Open(need.Envoy(b))
	if err != nil {
		b.Fatal(err)
	}
	defer binary.Close()
	log, err := os.Create(config + ".log")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/fd/3", "--config-path", config, "--disable-hot-restart", "--drain-time-s", "2",
		"--log-level", "warning", "--component-log-level", "misc:error", "--concurrency", strconv.Itoa(workers))
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr, cmd.Env = []*os.File{binary}, log, log, []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: proxy.DefaultUID, Gid: proxy.DefaultUID},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		end(cmd)
		if text, err := os.ReadFile(log.Name()); b.Failed() && err == nil {
			b.Logf("%s:\n%s", log.Name(), text)
		}
	})
	return &envoy{b, cmd.Process.Pid, adminSocket}, cmd
}

// workers is how many threads each Envoy serves with.
const workers = 2

// end kills a process and waits for its end. It may have ended before.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// cpu is the processor time that the process has used.
func (e *envoy) cpu() time.Duration {
	e.b.Helper()
	var sum time.Duration
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", e.pid))
	if err != nil || len(tasks) == 0 {
		e.b.Fatalf("no threads of %d: %v", e.pid, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread of the start has ended
		}
		if err != nil {
			e.b.Fatal(err)
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			e.b.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// read is how many bytes the process has read, from whatever.
func (e *envoy) read() int {
	e.b.Helper()
	return e.field("io", "rchar:")
}

// rss is the resident memory of the process.
func (e *envoy) rss() int {
	e.b.Helper()
	return e.field("status", "VmRSS:") << 10
}

// anonymous is what of it is the process's own: Envoys share the pages of their binary.
func (e *envoy) anonymous() int {
	e.b.Helper()
	return e.field("status", "RssAnon:") << 10
}

// pss is the memory of the process, in which a page that several have counts for each by its
// share.
func (e *envoy) pss() int {
	e.b.Helper()
	return e.field("smaps_rollup", "Pss:") << 10
}

func (e *envoy) field(file, name string) int {
	e.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", e.pid, file))
	if err != nil {
		e.b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				e.b.Fatal(err)
			}
			return n
		}
	}
	e.b.Fatalf("no %s in %s", name, file)
	return 0
}

// settle waits until the process has nothing to do.
func (e *envoy) settle() {
	e.b.Helper()
	const look, idle = 200 * time.Millisecond, 4 * time.Millisecond
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		before := e.cpu()
		time.Sleep(look)
		if e.cpu()-before < idle {
			return
		}
	}
	e.b.Fatalf("envoy %d is busy for ever", e.pid)
}

func (e *envoy) ask(path string) []byte {
	e.b.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.sock)
		},
	}}
	resp, err := c.Get("http://envoy" + path)
	if err != nil {
		e.b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		e.b.Fatalf("admin %s: %s, %v: %s", path, resp.Status, err, body)
	}
	return body
}

// allocated is the memory that Envoy has in use by its own account.
func (e *envoy) allocated() int {
	e.b.Helper()
	var m struct {
		Allocated int `json:"allocated,string"`
	}
	if err := json.Unmarshal(e.ask("/memory"), &m); err != nil || m.Allocated == 0 {
		e.b.Fatalf("memory: %v, %+v", err, m)
	}
	return m.Allocated
}

// listenerUpdates is how often a listener was changed or added.
func (e *envoy) listenerUpdates() int {
	e.b.Helper()
	sum, found := 0, 0
	for line := range strings.Lines(string(e.ask(`/stats?filter=^listener_manager\.listener_(added|modified|in_place_updated)$`))) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			e.b.Fatal(err)
		}
		sum, found = sum+n, found+1
	}
	if found != 3 {
		e.b.Fatalf("%d counters of listeners", found)
	}
	return sum
}

// bare is an Envoy with one tiny route table, for the address bareVIP: what a request
// costs at least.
const bare = `
node: {id: bare, cluster: bare}
admin: {address: {pipe: {path: "%[1]s/admin.sock"}}}
stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: "cluster."}, {contains: ".rds."}, {contains: ".scoped_rds."}, {prefix: "vhost."}]}}}
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}
    transparent: true
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: out, route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: a, timeout: 0s}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
  clusters:
  - name: a
    type: STATIC
    lb_policy: LEAST_REQUEST
    load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [%[3]s]}]}
`

func runBare(b *testing.B) *envoy {
	b.Helper()
	dir := folder(b)
	var endpoints []string
	for n := range 3 {
		a := endpointOf(0, n)
		endpoints = append(endpoints, fmt.Sprintf("{endpoint: {address: {socket_address: {address: %s, port_value: %d}}}}", a.Addr(), a.Port()))
	}
	config := filepath.Join(dir, "bare.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, bare, dir, barePort, strings.Join(endpoints, ", ")), 0o644); err != nil {
		b.Fatal(err)
	}
	e, _ := run(b, config, filepath.Join(dir, "admin.sock"))
	toBare.waitServed(b, 10*time.Second)
	return e
}

// folder is one that Envoy may write to, with a path that is short enough for sockets.
func folder(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, proxy.DefaultUID, proxy.DefaultUID)); err != nil {
		b.Fatal(err)
	}
	return dir
}
