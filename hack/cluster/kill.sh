#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Ends a node or a program of the test Kubernetes as a power cut does, with SIGKILL:
# hack/cluster/kill.sh node-1. hack/cluster/up.sh starts it again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

[ $# -gt 0 ] || { echo "usage: hack/cluster/kill.sh NAME...; there are $PROGRAMS $NODES" >&2; exit 2; }
for name in "$@"; do
	running "$name" || die "$name does not run; there are $PROGRAMS $NODES"
	echo 1 >"$(cgroup2)/$CLUSTER/$name/cgroup.kill"
	while running "$name"; do sleep 0.1; done
done
