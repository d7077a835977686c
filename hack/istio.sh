#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compares with istiod's own code: the scenarios that are written down, and some that are
# made up.
#
#   hack/istio.sh                                60 made-up ones
#   N=1000 SEED=2 KEEP=/tmp hack/istio.sh        so many, from another seed; those that fail are kept
#   N=1000 COUNTS=conformance/istio hack/istio.sh   counts go to that folder
#   SCENARIO='se_*.txtar' hack/istio.sh TestScenarios
#
# It is a Go module of its own. The first time, istiod is built, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
if [ -n "${COUNTS:-}" ]; then COUNTS=$(realpath "$COUNTS"); export COUNTS; fi
if [ -n "${KEEP:-}" ]; then KEEP=$(realpath "$KEEP"); export KEEP; fi
cd conformance/istio
# What the product needs it needs, too.
export GOFLAGS="${GOFLAGS:-} -mod=mod"
go vet ./...
go test -count=1 -timeout 5h -v -run "${1:-^(TestScenarios|TestGenerated)$}" .
