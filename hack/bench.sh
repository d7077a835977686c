#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the benchmarks, of all packages that have some or of those given:
#
#   hack/bench.sh                           everything, 30 minutes
#   hack/bench.sh ./conformance/bench       nodes beside sidecars, and changes, 12 minutes
#   hack/bench.sh ./conformance/bench/node  the node proxy beside other layouts, 9 minutes
#   hack/bench.sh ./conformance/istio/bench Fairlead beside istiod's code, 10 minutes, and
#                                           as many more to build that the first time
#
# What they print are ratios and counts within this one run: absolute times of a shared
# machine say little.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = ./conformance/istio/bench ]; then
	# A module of its own. The tag is that of Istio's releases: they encode faster by it.
	exec go test -C conformance/istio -tags vtprotobuf -run '^$' -bench . -benchtime 1x -timeout 60m ./bench
fi
ENVOY=$(hack/envoy.sh)
export ENVOY
if [ $# -eq 0 ]; then
	set -- ./bpf ./datapath ./agent/pipeline ./xds/... ./proxy ./conformance/...
fi
go test -run '^$' -bench . -benchtime 1x -timeout 30m -p 1 "$@"
