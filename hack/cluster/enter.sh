#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command on a node of the test Kubernetes, or a shell:
#
#   hack/cluster/enter.sh node-1 nft list ruleset
#   hack/cluster/enter.sh control-plane curl http://10.244.1.2:8080/
#
# control-plane is the network beside the nodes: a client outside the cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

[ $# -gt 0 ] || { echo "usage: hack/cluster/enter.sh NODE [COMMAND...]; there are control-plane $NODES" >&2; exit 2; }
place=$1
shift
[ $# -gt 0 ] || set -- bash
[ -e "$RUN/netns/$place" ] || die "there is no $place; is the cluster up (make cluster)? There are control-plane $NODES"
# What is started here belongs to the cluster, and ends with it.
enter_cgroup "$place"
[ "$place" != control-plane ] || exec nsenter --net="$RUN/netns/$place" "$@"
pid=$(node_pid "$place") || die "$place is not up; hack/cluster/up.sh starts it again"
# The first process' PATH leads to the node's programs.
PATH=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^PATH=//p')
export PATH=$RUN/$place/bin:$RUN/programs/bin:$RUN/programs/debian/usr/bin:$RUN/programs/debian/usr/sbin:$PATH
exec nsenter --target "$pid" --net --mount --pid --uts --ipc --cgroup -- "$@"
