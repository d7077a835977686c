// SPDX-License-Identifier: Apache-2.0

// Package version tells which version of Fairlead this program is.
package version

import (
	"cmp"
	"runtime/debug"
)

// release is set by the linker: see hack/version.sh.
var release string

// Unknown is what a program is that was built without saying it, as those of tests are.
const Unknown = "unknown"

// String is the version that this program was built as, what Go's own tools know of it, or
// Unknown.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return of(release, info)
}

func of(release string, info *debug.BuildInfo) string {
	module := info.Main.Version
	if module == "(devel)" {
		module = ""
	}
	commit := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return cmp.Or(release, module, commit, Unknown)
}
