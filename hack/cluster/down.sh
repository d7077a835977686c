#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the test Kubernetes away, whatever state it is in, and checks that nothing of it
# is left. It goes by the cluster's name alone: records may be missing or wrong. What was
# built stays in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

[ "$(id -u)" = 0 ] || die "this takes away namespaces, cgroups and mounts: run it as root"
if [ "${FAIRLEAD_CLUSTER_LOCKED:-}" != "$CLUSTER" ]; then
	mkdir -p "$CACHE/locks"
	exec 9>"$CACHE/locks/$CLUSTER"
	flock -n 9 || { say "waiting for another run"; flock 9; }
fi
if "$here/left.sh" >/dev/null; then
	say "there is no $CLUSTER"
	exit 0
fi

# All processes, and no others: whatever was started is below this cgroup.
top=$(cgroup2)/$CLUSTER
if [ -d "$top" ]; then
	for _ in $(seq 100); do
		echo 1 >"$top/cgroup.kill"
		grep -q '^populated 0' "$top/cgroup.events" && break
		sleep 0.1
	done
fi
awk -v below="$RUN/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r at; do
	umount -l "$at"
done
# What processes that have ended have held goes a moment later.
for _ in $(seq 100); do
	for at in $(hierarchies); do
		[ ! -d "$at/$CLUSTER" ] || find "$at/$CLUSTER" -depth -type d -exec rmdir {} \; 2>/dev/null || true
	done
	[ "$(for at in $(hierarchies); do ls -d "$at/$CLUSTER"; done 2>/dev/null)" ] || break
	sleep 0.1
done
rm -rf --one-file-system "$RUN"
for _ in $(seq 50); do
	if left=$("$here/left.sh"); then
		say "$CLUSTER is gone"
		exit 0
	fi
	sleep 0.1
done
say "this is left of $CLUSTER:"
echo "$left" >&2
exit 1
