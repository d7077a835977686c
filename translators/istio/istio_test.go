// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"testing"

	"fairlead.io/fairlead/model"
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
	for v, minor := range map[string]int{"": 31, "1.31": 31, "v1.24.3": 24, "1.22": 22} {
		got, err := New(Options{Version: v})
		if err != nil || got.minor != minor {
			t.Errorf("New(%q): minor %v, %v", v, got, err)
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
		if got := tr.defaultRetry(); len(got.StatusCodes) != codes {
			t.Errorf("%s: %+v", v, got)
		}
	}
}

func TestOptionsThatNobodyKnows(t *testing.T) {
	for _, o := range []Options{{OutboundTrafficPolicy: "registry_only"}, {DetectionTimeout: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) gave no error", o)
		}
	}
}

func TestDefaults(t *testing.T) {
	for policy, want := range map[string]model.Unknown{"": model.UnknownPass, "ALLOW_ANY": model.UnknownPass, "REGISTRY_ONLY": model.UnknownRefuse} {
		tr, err := New(Options{OutboundTrafficPolicy: policy})
		if err != nil {
			t.Fatal(err)
		}
		if d := tr.Defaults(nil); d.Basis != model.ByAuthority || d.Unknown != want {
			t.Errorf("%q: %+v", policy, d)
		}
	}
}
