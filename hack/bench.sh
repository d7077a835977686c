#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the benchmarks. What they print are ratios and counts within this one run:
# absolute times of a shared machine say little.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
go test -run '^$' -bench . -benchtime 1x -timeout 30m -p 1 ./bpf ./datapath ./agent/pipeline ./xds/... ./proxy ./conformance/...
