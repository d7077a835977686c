#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs SMI's conformance suite, its decision table and what is between versions on a real
# Kubernetes, which it puts up and takes away (as root):
#
#   hack/smi.sh                             all of it
#   hack/smi.sh -run TestSMI/suite -update  the suite, and its report anew
#   KEEP=1 hack/smi.sh ...                  leaves the cluster fairlead-smi up
set -euo pipefail
cd "$(dirname "$0")/.."
hack/cluster/build.sh >/dev/null
cd conformance/smi
go vet ./...
go test -count=1 -timeout 60m -v "$@" .
