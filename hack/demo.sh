#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the demo; see conformance/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
ENVOY=$(hack/envoy.sh)
go build -o bin/demo ./conformance/demo
exec bin/demo bin/fairlead "$ENVOY"
