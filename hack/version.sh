#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the flag for the linker that tells a program its version: the tag that the commit
# has or follows, else the chart's version with the commit. The same checkout gives the same.
set -euo pipefail
cd "$(dirname "$0")/.."
value() { sed -n "s/^$1: *//p" deploy/chart/Chart.yaml; }
# Twelve digits: by itself git takes as many as the clone needs.
if ! version=$(git describe --tags --match 'v[0-9]*' --abbrev=12 --dirty 2>/dev/null); then
	version=v$(value version)-$(value appVersion)
	if commit=$(git rev-parse --short=12 HEAD 2>/dev/null); then
		version+=+$commit
		git diff --quiet HEAD || version+=.dirty
	fi
fi
echo "-X=fairlead.io/fairlead/internal/version.release=$version"
