// SPDX-License-Identifier: Apache-2.0

// Package istiod is Istio's half: istiod's own code generates what each sidecar of a
// scenario would get, and stock Envoys run it.
package istiod

import (
	"fmt"
	"os"
	"sync"
)

// failer implements Istio's test.Failer outside of tests. Failures are panics: istiod's
// fake server calls it from goroutines of its own, too.
type failer struct {
	mu    sync.Mutex
	clean []func()
}

type failed string

func (f failed) Error() string { return string(f) }

func (f *failer) Fail()                     { panic(failed("failed")) }
func (f *failer) FailNow()                  { panic(failed("failed")) }
func (f *failer) Fatal(a ...any)            { panic(failed(fmt.Sprint(a...))) }
func (f *failer) Fatalf(s string, a ...any) { panic(failed(fmt.Sprintf(s, a...))) }
func (f *failer) Log(...any)                {}
func (f *failer) Logf(string, ...any)       {}
func (f *failer) Helper()                   {}
func (f *failer) Skip(a ...any)             { panic(failed("skipped: " + fmt.Sprint(a...))) }

func (f *failer) TempDir() string {
	d, err := os.MkdirTemp("", "istiod")
	if err != nil {
		panic(failed(err.Error()))
	}
	f.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func (f *failer) Cleanup(c func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clean = append(f.clean, c)
}

// close runs what was left to be cleaned up, the last first.
func (f *failer) close() {
	f.mu.Lock()
	all := f.clean
	f.clean = nil
	f.mu.Unlock()
	for i := len(all) - 1; i >= 0; i-- {
		all[i]()
	}
}
