#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests of what lasts in full. They tell what they did.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
go test -count=1 -timeout 30m -v ./conformance/chaos -changes 10000 -kills 50 "$@"
