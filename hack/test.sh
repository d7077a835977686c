#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs all tests that no change may break. As root with CI=true nothing that needs the
# kernel or Envoy may be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
hack/lint.sh
# Packages that make nodes in network namespaces share the machine's two cores
# badly: one package at a time.
go list ./... | grep -Ev '/conformance/(faults|live)$' | xargs go test -count=1 -timeout 20m -p 1
# Storms for a short time, and no decision tables, whose requests are asked of the plan
# alone here: hack/conformance.sh runs them live, and .ci/run that, where they may differ.
go test -count=1 -timeout 30m ./conformance/live -short -skip '^(TestSMI|TestLinkerd)$'
# The faults that cost least to try: hack/faults.sh tries all.
go test -count=1 -timeout 10m ./conformance/faults -run '^(TestEnvoyKilled|TestEnvoyStopped|TestPolicyNarrowsWithoutAnAgent|TestNodeRebuilt)$'
hack/fuzz.sh 3s
