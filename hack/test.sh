#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs all tests. As root with CI=true nothing that needs the kernel or Envoy may
# be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
export ENVOY
hack/lint.sh
# Packages that make nodes in network namespaces share the machine's two cores
# badly: one package at a time.
go test -count=1 -timeout 20m -p 1 ./...
hack/fuzz.sh 3s
