// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

// TestServiceGoneAndBack: a connection that stays outlives its service. While that is gone
// its requests are refused; when it is back they are answered, as over a fresh one.
func TestServiceGoneAndBack(t *testing.T) {
	r := newRig(t)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	c, err := dialer(alpha).DialContext(t.Context(), "tcp", vip(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	ask := func() int {
		t.Helper()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: web\r\n\r\n")
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for range 3 {
		if got := ask(); got != 200 {
			t.Fatalf("at first: %d", got)
		}
		var gone []serve.Change
		for _, res := range resources(t, service(1)...) {
			gone = append(gone, serve.Change{Type: res.Type, Name: res.Name})
		}
		if _, err := r.agent.Push(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		r.wantStatus(1, 404)
		for range 5 {
			if got := ask(); got != 404 {
				t.Errorf("while it is gone: %d", got)
			}
			time.Sleep(20 * time.Millisecond)
		}
		r.push(service(1, to("a"))...)
		r.wantStatus(1, 200)
		for range 5 {
			if got := ask(); got != 200 {
				t.Errorf("when it is back: %d", got)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}
