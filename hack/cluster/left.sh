#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tells what of a test Kubernetes is on this machine, a line each; succeeds if that is
# nothing. Network namespaces, devices, routes and rules are the kernel's for as long as a
# process or a mount holds the namespace, and both of these are looked for everywhere.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

left() {
	local at
	[ ! -e "$RUN" ] || echo "folder $RUN"
	for at in $(hierarchies); do
		[ ! -d "$at/$CLUSTER" ] || echo "cgroup $at/$CLUSTER"
	done
	# In whatever mount namespace; and no process may be in a cgroup of that name or have
	# its program or its working folder there.
	grep -sl " $RUN/" /proc/[0-9]*/mountinfo | sed 's,^/proc/\([0-9]*\)/.*,mounts seen by process \1,'
	grep -sl ":/$CLUSTER/" /proc/[0-9]*/cgroup | sed 's,^/proc/\([0-9]*\)/.*,process \1 in its cgroup,'
	find /proc/[0-9]* -maxdepth 1 \( -name exe -o -name cwd \) \( -lname "$RUN/*" -o -lname "$RUN" -o -lname "$RUN (*" \) 2>/dev/null | sed 's,^/proc/\([0-9]*\)/\(.*\),process \1 by its \2,'
}
found=$(left || true)
[ -z "$found" ] || { echo "$found"; exit 1; }
