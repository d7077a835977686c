#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Breaks the parts of two nodes one by one, under load, in full. The tests tell what it
# cost; conformance/faults/README.md says which fault is proved where.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
go test -count=1 -timeout 60m -v ./conformance/faults -full "$@"
