// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/swap"
)

func TestSwap(t *testing.T) { runCases(t, "testdata/swap/*.txtar") }

// shownSwap is a swap whose difference has been shown, and which has not been written.
func shownSwap(t *testing.T) *swapping {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"app.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n",
		"smi.yaml": "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: web, namespace: shop}\nspec: {service: web, backends: [{service: web, weight: 1}]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &cobra.Command{}
	c.SetContext(t.Context())
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	s := &swapping{swapFlags: swapFlags{to: "smi", folder: dir, server: &server{}}, c: c, out: "json", mesh: &pipeline.Options{}, result: swapped{Namespace: "shop"}}
	if err := s.find(); err != nil {
		t.Fatal(err)
	}
	if err := s.target(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.result.Change, err = s.change(s.given); err != nil {
		t.Fatal(err)
	}
	return s
}

// notWritten checks that a swap ends with an error, and leaves the namespace's owner.
func notWritten(t *testing.T, s *swapping, want string) {
	t.Helper()
	if err := s.flip(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("ended with %v, want %q", err, want)
	}
	text, err := os.ReadFile(filepath.Join(s.folder, "app.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, owner, err := swap.SetOwner(text, "shop", swap.None); err != nil || owner != swap.None || s.result.Written {
		t.Errorf("the owner is %s, %v", owner, err)
	}
}

func TestSwapWritesOnlyWhatWasShown(t *testing.T) {
	t.Run("a file has changed", func(t *testing.T) {
		s := shownSwap(t)
		file := filepath.Join(s.folder, "smi.yaml")
		if err := os.WriteFile(file, []byte("# nothing any more\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		notWritten(t, s, file+" changed since the difference was shown")
	})
	t.Run("interrupted", func(t *testing.T) {
		s := shownSwap(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.c.SetContext(ctx)
		notWritten(t, s, "nothing was written")
	})
	t.Run("no agent", func(t *testing.T) {
		s := shownSwap(t)
		s.asked, s.before, s.watch = askedAt([]string{t.TempDir()}), 100*time.Millisecond, time.Second
		notWritten(t, s, "is it running on this node?")
	})
	t.Run("nothing has changed", func(t *testing.T) {
		s := shownSwap(t)
		if err := s.flip(); err != nil || !s.result.Written {
			t.Errorf("ended with %v", err)
		}
	})
}
