#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs on the lab in full what hack/test.sh leaves out or shortens:
#
#   hack/conformance.sh          all of conformance/live, storms at length
#   hack/conformance.sh rest     what hack/test.sh leaves out or shortens, and nothing twice
#   hack/conformance.sh smi      SMI's decision table, and then hack/smi.sh
#   hack/conformance.sh linkerd  Linkerd's decision table
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
"") run=. ;;
# Tests that are shorter with -short, and the tables that hack/test.sh skips.
rest) run="^($(grep -l 'testing.Short()' conformance/live/*_test.go | xargs grep -ho '^func Test[A-Za-z]*' | cut -c6- | paste -sd'|')|TestSMI|TestLinkerd)$" ;;
smi) run='^TestSMI$' ;;
linkerd) run='^TestLinkerd$' ;;
*) echo "there is no table $1" >&2; exit 2 ;;
esac
ENVOY=$(hack/envoy.sh)
export ENVOY
go test -count=1 -timeout 55m ./conformance/live -run "$run"
[ "${1:-}" != smi ] || hack/smi.sh
