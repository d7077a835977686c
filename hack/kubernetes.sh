#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests on a real Kubernetes, which it puts up and takes away (as root):
#
#   hack/kubernetes.sh                           all of them
#   hack/kubernetes.sh -run TestPodsAndServices
#   KEEP=1 hack/kubernetes.sh ...                leaves the cluster fairlead-conformance up
#   hack/kubernetes.sh scale                     measures what a big cluster costs instead
#
# The first time, Kubernetes is built, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/cluster/build.sh >/dev/null
cd conformance/kubernetes
go vet ./...
if [ "${1:-}" = scale ]; then exec go test -run '^$' -bench . -benchtime 1x -timeout 60m -v ./scale; fi
go test -count=1 -timeout 60m -v "$@" .
