# SPDX-License-Identifier: Apache-2.0
# What the scripts of the test cluster share: names, addresses, and how processes are
# started so that nothing of them can be lost. To be sourced.
#
# All of a cluster is below one folder and below one cgroup, both named after it, so that
# what is there can be taken away without records.
#
#   RUN/netns/        network namespaces: control-plane, node-1, node-2
#   RUN/pki/          keys, certificates and kubeconfigs of the programs
#   RUN/kubeconfig    for users
#   RUN/logs/         what the programs print
#   RUN/NODE/         what a node keeps: its parts of /etc, /opt, /var, /run
#   RUN/images/       image archives that nodes take up
#   RUN/settings      what the cluster was put up with

CLUSTER=${CLUSTER:-fairlead-cluster}
if ! [[ $CLUSTER =~ ^[a-z][a-z0-9-]{0,40}$ ]]; then
	echo "CLUSTER=$CLUSTER: want a name of small letters, digits and dashes" >&2
	exit 2
fi
RUN=/run/$CLUSTER
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/fairlead
NODES="node-1 node-2"
PROGRAMS="etcd kube-apiserver kube-controller-manager kube-scheduler forward"
CONTROL_PLANE=10.240.0.254
CONTROL_PLANE6=fd40::fe
DNS=10.96.0.10
DNS6=fd96::a
CLUSTER_CIDR=10.244.0.0/16,fd44::/16
SERVICE_CIDR=10.96.0.0/16,fd96::/112

# Addresses by a node's number, as in the lab.
address() { echo "10.240.0.$1"; }
address6() { echo "fd40::$1"; }
pod_cidr() { echo "10.244.$1.0/24"; }
pod_cidr6() { echo "fd44:$1::/64"; }

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }

# hierarchies prints where cgroups are mounted, version 1 and 2.
hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts | sort -u; }
# cgroup2 prints where version 2 is mounted. Every process of the cluster is below
# CLUSTER there, whatever it does otherwise.
cgroup2() { awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts; }

# version2 tells whether the machine has no cgroups but those of version 2.
version2() { [ "$(hierarchies)" = "$(cgroup2)" ]; }

# make_cgroup NAME makes CLUSTER/NAME in every hierarchy.
make_cgroup() {
	local at dir part controller
	for at in $(hierarchies); do
		dir=$at
		for part in "$CLUSTER" "$1"; do
			if version2; then
				for controller in $(cat "$dir/cgroup.controllers"); do
					echo "+$controller" >"$dir/cgroup.subtree_control" || die "cannot use the cgroup controller $controller below $dir; in a container, give it the machine's cgroup namespace"
				done
			fi
			[ -d "$dir/$part" ] || mkdir "$dir/$part"
			if [ -f "$dir/cpuset.cpus" ] && [ ! -f "$dir/cgroup.controllers" ]; then
				# A cpuset of version 1 begins empty and takes no process.
				cat "$dir/cpuset.cpus" >"$dir/$part/cpuset.cpus"
				cat "$dir/cpuset.mems" >"$dir/$part/cpuset.mems"
			fi
			dir=$dir/$part
		done
	done
}

# enter_cgroup NAME moves the calling shell into CLUSTER/NAME, in every hierarchy; of a
# node that may not have processes where it has pods, into the leaf that node.sh made.
enter_cgroup() {
	local at dir
	for at in $(hierarchies); do
		dir=$at/$CLUSTER/$1
		[ ! -d "$dir/system" ] || dir=$dir/system
		echo "$BASHPID" >"$dir/cgroup.procs"
	done
}

# running NAME tells whether a program or a node lives. What the kernel says is right
# also if whoever started it was killed at once.
running() { grep -qs '^populated 1' "$(cgroup2)/$CLUSTER/$1/cgroup.events"; }

# start NAME COMMAND... runs a program in the background, in the cgroup of its name,
# unless it runs already.
start() {
	local name=$1
	shift
	if running "$name"; then return; fi
	say "starting $name"
	(
		enter_cgroup "$name"
		exec 9>&- # the lock is not the program's
		exec setsid "$@"
	) >>"$RUN/logs/$name.log" 2>&1 </dev/null &
	# Until it is in its cgroup; what has ended at once is found out by who needs it.
	for _ in $(seq 100); do
		if running "$name"; then return; fi
		sleep 0.02
	done
}

# in_netns NAME COMMAND... runs a command in a network namespace of the cluster, and
# leaves everything else as it is.
in_netns() { local name=$1; shift; nsenter --net="$RUN/netns/$name" "$@"; }

# node_pid NODE prints the first process of a node's own namespaces.
node_pid() {
	local pid
	for pid in $(cat "$(cgroup2)/$CLUSTER/$1/cgroup.procs" "$(cgroup2)/$CLUSTER/$1/system/cgroup.procs" 2>/dev/null); do
		# It has two numbers, and within the node it is the first.
		if grep -qs "^NSpid:[[:space:]]*$pid[[:space:]]1\$" "/proc/$pid/status"; then
			echo "$pid"
			return
		fi
	done
	return 1
}

# kube is kubectl as the cluster's administrator.
kube() { "$RUN/bin/kubectl" --kubeconfig "$RUN/kubeconfig" "$@"; }
