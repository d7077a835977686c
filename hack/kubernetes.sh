#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests on a real Kubernetes, which it puts up and takes away (as root):
#
#   hack/kubernetes.sh                           all of them
#   hack/kubernetes.sh -run TestPodsAndServices
#   KEEP=1 hack/kubernetes.sh ...                leaves the cluster fairlead-conformance up
#
# The first time, Kubernetes is built, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/cluster/build.sh >/dev/null
cd conformance/kubernetes
go vet ./...
go test -count=1 -timeout 60m -v "$@" .
