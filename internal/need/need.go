// SPDX-License-Identifier: Apache-2.0

// Package need says what a test needs. Where it is missing the test is skipped
// with the reason; where everything is expected to be there (CI=true or
// FAIRLEAD_REQUIRE_KERNEL=1) it fails.
package need

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Strict reports whether a missing need is a failure.
func Strict() bool {
	return os.Getenv("CI") == "true" || os.Getenv("FAIRLEAD_REQUIRE_KERNEL") == "1"
}

// Missing skips or fails the test for a reason.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if Strict() {
		t.Fatalf("needed here, but missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Root needs the test to run as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Command needs a program on PATH.
func Command(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(t, "needs the program %s", name)
	}
}

// Envoy needs a stock Envoy and returns its path: $ENVOY, or what hack/envoy.sh finds or
// fetches. Tests that were built without paths (-trimpath) do not know where that is.
func Envoy(t testing.TB) string {
	t.Helper()
	if set := os.Getenv("ENVOY"); set != "" {
		return set
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no source path")
	}
	out, err := exec.Command(filepath.Join(filepath.Dir(file), "..", "..", "hack", "envoy.sh")).Output()
	if err != nil {
		reason := err.Error()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			reason = strings.TrimSpace(string(e.Stderr))
		}
		Missing(t, "needs Envoy: %s", reason)
	}
	return strings.TrimSpace(string(out))
}
