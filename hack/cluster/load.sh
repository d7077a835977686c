#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Gives images to the nodes of the test Kubernetes: hack/cluster/load.sh FILE.tar...
# Pods use them with imagePullPolicy: Never. hack/image makes such files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

[ $# -gt 0 ] || { echo "usage: hack/cluster/load.sh FILE.tar..." >&2; exit 2; }
for file in "$@"; do
	[ -r "$file" ] || die "cannot read $file"
	for node in $NODES; do
		"$here/enter.sh" "$node" ctr -n k8s.io images import - <"$file" >/dev/null || die "$node does not take $file"
	done
done
