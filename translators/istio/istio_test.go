// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"testing"
	"time"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator {
	t, err := New(Options{})
	if err != nil {
		panic(err)
	}
	return t
}

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

func TestVersions(t *testing.T) {
	for _, v := range []string{"", "1.31", "v1.24.3", "1.22"} {
		if _, err := New(Options{Version: v}); err != nil {
			t.Errorf("New(%q): %v", v, err)
		}
	}
	for _, v := range []string{"1", "1.21", "1.32", "2.0", "latest", "1.x"} {
		if _, err := New(Options{Version: v}); err == nil {
			t.Errorf("New(%q) gave no error", v)
		}
	}
}

// The default changed after 1.23: before, 503 was retried too.
func TestDefaultRetryByVersion(t *testing.T) {
	for v, codes := range map[string]int{"1.23": 1, "1.24": 0} {
		tr, err := New(Options{Version: v})
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.profile.defaultRetry(); len(got.StatusCodes) != codes {
			t.Errorf("%s: %+v", v, got)
		}
	}
}

func TestOptionsThatNobodyKnows(t *testing.T) {
	before := -time.Second
	for _, o := range []Options{{OutboundTrafficPolicy: "registry_only"}, {DetectionTimeout: &before}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) gave no error", o)
		}
	}
}
