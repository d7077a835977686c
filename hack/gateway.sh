#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the Gateway API's own conformance suite, what a mesh needs of it, on a real
# Kubernetes that is put up and taken away (as root):
#
#   hack/gateway.sh                     all of it
#   hack/gateway.sh -run TestSuite
#   hack/gateway.sh -update             keeps the report and the table of this run
#   KEEP=1 hack/gateway.sh              leaves the cluster fairlead-gateway up
#   PROXY_MODE=nftables hack/gateway.sh as hack/cluster/up.sh
#
# It is a Go module of its own. The first time, Kubernetes and what runs in the suite's
# pods are built, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/cluster/build.sh >/dev/null
cd conformance/gateway
go vet ./...
go test -count=1 -timeout 60m -v . "$@"
