#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests on a real Kubernetes, which it puts up and takes away (as root):
#
#   hack/kubernetes.sh                           all of them, about an hour
#   hack/kubernetes.sh traffic                   what the datapath and the proxy do there, 15 minutes
#   hack/kubernetes.sh installed                 what installing and objects come to, 25 minutes
#   hack/kubernetes.sh -run TestPodsAndServices
#   KEEP=1 hack/kubernetes.sh ...                leaves the cluster fairlead-conformance up
#   hack/kubernetes.sh scale                     measures instead what a big cluster costs, 20 minutes;
#                                                SERVICES=200: another size, KEEP=1: leaves fairlead-scale up
#
# The first time, Kubernetes is built, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/cluster/build.sh >/dev/null
cd conformance/kubernetes
go vet ./...
if [ "${1:-}" = scale ]; then
	# Whatever ends it: a benchmark that is killed cleans up nothing.
	[ -n "${KEEP:-}" ] || trap 'CLUSTER=fairlead-scale ../../hack/cluster/down.sh' EXIT
	trap 'exit 1' HUP INT TERM
	go test -run '^$' -bench . -benchtime 1x -timeout 60m -v ./scale
	exit
fi
# The two parts are for changes of one kind. What both leave out takes long, or is about faults
# of a whole node: TestFaults, TestPodsChurn, TestSidecars and TestKilledHalfway.
traffic='^(TestPodsAndServices|TestPodsStartGuarded|TestNode|TestNodeBridged|TestNodesAreApart|TestNodeKilled|TestOtherNetwork|TestProofs)$'
case ${1:-} in
traffic) set -- -run "$traffic" ;;
installed) set -- -skip "$traffic|^(TestFaults|TestPodsChurn|TestSidecars|TestKilledHalfway)$" ;;
esac
go test -count=1 -timeout 75m -v "$@" .
