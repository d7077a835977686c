// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/proxy"
)

// listenAt answers at a unix socket, or without a handler takes connections and is silent.
func listenAt(t *testing.T, path string, h http.HandlerFunc) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if h != nil {
		srv := &http.Server{Handler: h}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
	}
}

func answer(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestPresence(t *testing.T) {
	status := func(gs ...proxy.Generation) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(proxy.Status{Generations: gs}); err != nil {
				t.Error(err)
			}
		}
	}
	live := proxy.Generation{Role: proxy.Active, Ready: true, State: "LIVE"}
	busy := proxy.Generation{Role: proxy.Active, Ready: true, State: "silent"}
	for name, c := range map[string]struct {
		serve func(t *testing.T, p proxy.Paths)
		want  presence
	}{
		"nobody":   {func(*testing.T, proxy.Paths) {}, gone},
		"live":     {func(t *testing.T, p proxy.Paths) { listenAt(t, p.Control, status(live)) }, ready},
		"busy":     {func(t *testing.T, p proxy.Paths) { listenAt(t, p.Control, status(busy)) }, silent},
		"no Envoy": {func(t *testing.T, p proxy.Paths) { listenAt(t, p.Control, status()) }, gone},
		"busy before it was ready": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Control, status(proxy.Generation{Role: proxy.Active, State: "silent"}))
		}, gone},
		"draining": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Control, status(proxy.Generation{Role: proxy.Draining, Ready: true, State: "silent"}))
		}, gone},
		"no proxy, live": {func(t *testing.T, p proxy.Paths) { listenAt(t, p.Admin[1], answer(http.StatusOK)) }, ready},
		"no proxy, not ready": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Admin[0], answer(http.StatusServiceUnavailable))
		}, gone},
		"no proxy, busy": {func(t *testing.T, p proxy.Paths) { listenAt(t, p.Admin[0], nil) }, silent},
		"no proxy, one busy and one live": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Admin[0], nil)
			listenAt(t, p.Admin[1], answer(http.StatusOK))
		}, ready},
		"a proxy that hangs, live": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Control, nil)
			listenAt(t, p.Admin[0], answer(http.StatusOK))
		}, ready},
		"a proxy that hangs, busy": {func(t *testing.T, p proxy.Paths) {
			listenAt(t, p.Control, nil)
			listenAt(t, p.Admin[0], nil)
		}, silent},
		"no proxy, so busy that its queue is full": {func(t *testing.T, p proxy.Paths) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: p.Admin[0]}), unix.Listen(fd, 0)); err != nil {
				t.Fatal(err)
			}
			for {
				c, err := net.Dial("unix", p.Admin[0])
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
			}
		}, silent},
		"a socket that an Envoy left": {func(t *testing.T, p proxy.Paths) {
			l, err := proxy.Listen(p.Admin[0], -1)
			if err == nil {
				err = l.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}, gone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "fl") // short: sockets are in it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			p := proxy.PathsIn(dir)
			if err := os.MkdirAll(p.Envoy, 0o700); err != nil {
				t.Fatal(err)
			}
			c.serve(t, p)
			a := &agent{opts: Options{RunDir: dir}}
			if got := a.findReady(t.Context()); got != c.want {
				t.Errorf("presence %d, want %d", got, c.want)
			}
		})
	}
}
