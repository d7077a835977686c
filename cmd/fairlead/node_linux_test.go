// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestWrongUsageOnANode(t *testing.T) {
	for args, want := range map[string]string{
		"status --node a":      "needs --lab",
		"observe --node a":     "needs --lab",
		"observe --last -1":    "want 0 or more",
		"observe --verdict no": "want forwarded, redirected, dropped or denied",
		"lab up --image a":     "want NAME=COMMAND",
		"lab up":               "needs manifests",
		"lab exec pod":         "needs a pod and a command",
		"agent --node a --source . --uplink lo --trust-domain a/b": "want lower-case letters",
	} {
		r := fairlead(t, "", strings.Fields(args)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) || r.out != "" {
			t.Errorf("%s: exit %d, out %q, says %q; want 2 and %q", args, r.code, r.out, r.err, want)
		}
	}
}
