#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target for a while: hack/fuzz.sh [TIME each, default 3s]. The targets of
# translators bound what an input may take (translators/translatortest/bounds.go); what
# would take all of the machine's memory is stopped here.
set -euo pipefail
ulimit -v $((16 << 20)) # KiB
cd "$(dirname "$0")/.."
each=${1:-3s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do
	grep -oE '^func Fuzz[A-Za-z0-9]+' "$file" | sed 's/func //' | while read -r target; do
		echo "fuzz $(dirname "$file") $target"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$each" -fuzzminimizetime 5x >"$log" 2>&1 ||
			{ cat "$log"; exit 1; }
	done
done
