// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// Where WebSocket does not pass, as through some proxies, or may not be had, SPDY is tried; and
// what that comes to is told.
func TestDialFallsBack(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.Header.Get("Upgrade")+" "+r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "`+r.Method+` is forbidden"}`)
	}))
	defer s.Close()
	conn, err := Dial(t.Context(), &rest.Config{Host: s.URL}, Agent{Namespace: "fairlead-system", Pod: "agent-x"}, "fairlead", "agent", "relay")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadAll(conn); err == nil || !strings.Contains(err.Error(), "pod fairlead-system/agent-x") || !strings.Contains(err.Error(), "POST is forbidden") {
		t.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	const at = " /api/v1/namespaces/fairlead-system/pods/agent-x/exec"
	if want := []string{"GET websocket" + at, "POST SPDY/3.1" + at}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}
