// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/conformance/twonodes"
)

type status = agent.Status

func (w *world) status(t *testing.T, node string) *status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), twonodes.Patience)
	defer cancel()
	s, err := w.Agents[node].Status(ctx)
	if err != nil {
		t.Fatalf("%s: %v", node, err)
	}
	return s
}

// awaitStatus waits until a node's status is as wanted, and returns how long that took.
func (w *world) awaitStatus(t *testing.T, node, what string, ok func(*status) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*twonodes.Patience)
	defer cancel()
	var last *status
	var err error
	for ctx.Err() == nil {
		if last, err = w.Agents[node].Status(ctx); err == nil && ok(last) {
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s: waited in vain for %s: %v, %+v", node, what, err, last)
	return 0
}

// envoyOf is the Envoy that serves on a node.
func (w *world) envoyOf(t *testing.T, node string) int {
	t.Helper()
	s := w.status(t, node)
	if s.Proxy == nil || s.Proxy.Envoy.PID == 0 {
		t.Fatalf("%s has no Envoy: %+v", node, s.Proxy)
	}
	return s.Proxy.Envoy.PID
}

// write puts manifests into a file.
func (w *world) write(t *testing.T, manifests string) string {
	t.Helper()
	file := filepath.Join(w.Dir, "more.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
