// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"fmt"
	"runtime/metrics"
	"testing"
	"time"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// What an input may take. The manifests of the cases allocate up to 4 MiB beside Stage, and
// up to 11 KiB for each of their bytes: the bounds are far above it, and below what would
// be felt.
const (
	maxTime         = 20 * time.Second // of machines that do other things beside
	maxBytes        = 32 << 20         // allocated, whatever the input
	maxBytesPerByte = 64 << 10         // and for each byte of it
)

// Fuzzed translates and plans manifests beside a company, for fuzzing: it must be done
// with little time and memory. make may be nil, as with Translate.
func Fuzzed(t testing.TB, make func() translators.Translator, company, text string) Output {
	t.Helper()
	var out Output
	bounded(t, len(text), func() {
		in := []objects.Input{{Name: "company.yaml", Data: []byte(company)}, {Name: "in.yaml", Data: []byte(text)}}
		if make == nil {
			out = Translate(nil, in...)
		} else {
			out = Planned(make, in...)
		}
		out.Model()
		out.Plan()
		out.DiagnosticLines()
	})
	return out
}

// bounded runs what is done with an input of so many bytes. It ends the process with the
// stacks if that takes too long, so that the fuzzer keeps the input, and fails the test if
// it allocates too much.
func bounded(t testing.TB, size int, f func()) {
	t.Helper()
	timer := time.AfterFunc(maxTime, func() { panic(fmt.Sprintf("%d bytes take more than %s", size, maxTime)) })
	defer timer.Stop()
	before := allocated()
	f()
	if n, most := allocated()-before, uint64(maxBytes+size*maxBytesPerByte); n > most {
		t.Errorf("%d bytes of input allocate %d, more than %d", size, n, most)
	}
}

// allocated is the number of bytes that the process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
