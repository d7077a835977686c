#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts up the test Kubernetes: etcd, a control plane and two nodes, each in namespaces of
# its own on this machine (as root). Does what is missing, and nothing else: also after
# it was killed, and after a node or a program was.
#
#   hack/cluster/up.sh
#   PROXY_MODE=nftables hack/cluster/up.sh    kube-proxy with nftables, not iptables
#   CNI=bridge hack/cluster/up.sh             pods on a bridge, not point to point
#   NODE_REPORT=5m hack/cluster/up.sh         kubelets tell that nothing has changed as seldom as
#                                             anywhere else, and not every 2 s
#   CLUSTER=other hack/cluster/up.sh          another one beside the first
#   WAIT=600 hack/cluster/up.sh               seconds that nodes and DNS may take, default 300
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
export CLUSTER CNI=${CNI:-ptp} PROXY_MODE=${PROXY_MODE:-iptables}
WAIT=${WAIT:-300}

check_machine() {
	local program missing=
	case $PROXY_MODE in iptables | nftables) ;; *) die "PROXY_MODE=$PROXY_MODE: want iptables or nftables" ;; esac
	[[ $WAIT =~ ^[1-9][0-9]*$ ]] || die "WAIT=$WAIT: want seconds"
	case $CNI in ptp | bridge) ;; *) die "CNI=$CNI: want ptp or bridge" ;; esac
	[ "$(id -u)" = 0 ] || die "this makes namespaces, cgroups and mounts: run it as root"
	for program in go ip nft nsenter unshare setsid flock mount awk; do
		command -v "$program" >/dev/null || missing="$missing $program"
	done
	[ -z "$missing" ] || die "missing:$missing; hack/setup.sh installs all but Go"
	[ -n "$(cgroup2)" ] || die "no cgroup2 file system is mounted; mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
}

# check_inotify: programs that find no inotify instance left, of those that the machine
# gives a user, fail late and say "too many open files". A cluster with Fairlead has
# some 25.
check_inotify() {
	local need=25 max used
	any_node && return
	max=$(cat /proc/sys/fs/inotify/max_user_instances 2>/dev/null) || return 0
	used=$({ find /proc/[0-9]*/fd -user 0 -lname anon_inode:inotify 2>/dev/null || true; } | wc -l) # processes may end meanwhile
	[ $((used + need)) -le "$max" ] || die "root has $used of $max inotify instances, and a cluster needs $need: take another cluster down (CLUSTER=... hack/cluster/down.sh), or allow more: sysctl -w fs.inotify.max_user_instances=$((max * 2 > used + need ? max * 2 : used + need))"
}

# namespace makes a network namespace, which a mount holds. No address waits for an answer
# to whether somebody else has it: nobody has.
namespace() {
	touch "$RUN/netns/$1"
	unshare --net="$RUN/netns/$1" sh -c 'ip link set lo up
		for i in all default; do
			echo 0 >/proc/sys/net/ipv6/conf/$i/accept_dad
			echo 1 >/proc/sys/net/ipv6/conf/$i/forwarding
		done
		echo 1 >/proc/sys/net/ipv4/ip_forward'
}

# network makes a bridge in the control plane's namespace, on which the nodes hang. Which
# node has which pods is in static routes. An unfinished network is made anew.
network() {
	local name node n=0
	[ ! -f "$RUN/netns/complete" ] || return 0
	mkdir -p "$RUN/netns"
	for name in control-plane $NODES; do
		umount "$RUN/netns/$name" 2>/dev/null || true
	done
	namespace control-plane
	in_netns control-plane sh -c "ip link add fabric type bridge && ip link set fabric up &&
		ip addr add $CONTROL_PLANE/24 dev fabric && ip addr add $CONTROL_PLANE6/64 dev fabric"
	for node in $NODES; do
		n=$((n + 1))
		node_network "$node" $n
		in_netns control-plane sh -c "ip route add $(pod_cidr $n) via $(address $n) && ip route add $(pod_cidr6 $n) via $(address6 $n)"
	done
	touch "$RUN/netns/complete"
}

# node_network makes a node's network, anew if there is one.
node_network() {
	local node=$1 other n=0
	in_netns control-plane ip link del "$node" 2>/dev/null || true # with its other end
	umount "$RUN/netns/$node" 2>/dev/null || true
	namespace "$node"
	in_netns "$node" ip link add eth0 address "02:fa:1d:00:00:0$2" type veth peer name "$node" netns "$RUN/netns/control-plane"
	in_netns control-plane ip link set "$node" master fabric up
	# What is for a pod that is not there goes no further, as on nodes of CNI plugins with routes.
	in_netns "$node" sh -c "ip link set eth0 up &&
		ip addr add $(address "$2")/24 dev eth0 && ip addr add $(address6 "$2")/64 dev eth0 &&
		ip route add default via $CONTROL_PLANE && ip route add default via $CONTROL_PLANE6 &&
		ip route add blackhole $(pod_cidr "$2") metric 4096 && ip route add blackhole $(pod_cidr6 "$2") metric 4096"
	for other in $NODES; do
		n=$((n + 1))
		[ "$other" != "$node" ] || continue
		in_netns "$node" sh -c "ip route add $(pod_cidr $n) via $(address $n) && ip route add $(pod_cidr6 $n) via $(address6 $n)"
	done
}

# images builds what runs in pods: archives that nodes take up when they start.
images() {
	local busybox links= name
	mkdir -p "$RUN/images" "$RUN/build"
	CGO_ENABLED=0 nice go build -C "$here/../.." -trimpath -buildvcs=false -ldflags '-s -w' -o "$RUN/build/" \
		./hack/image ./hack/cluster/forward ./hack/cluster/lab ./hack/cluster/pause ./hack/cluster/pki ||
		die "what runs in pods does not build, see above"
	for name in sh cat cut env grep head id ip ls nc nslookup ping ps sleep wget; do links="$links link:busybox=/bin/$name"; done
	for name in echo-server load request call knock; do
		links="$links link:lab=/bin/$name"
		ln -sf lab "$RUN/build/$name" # for clients outside, see enter.sh
	done
	busybox=$programs/debian/bin/busybox
	image pause -entrypoint /pause "$RUN/build/pause=/pause"
	image coredns -entrypoint /coredns "$programs/bin/coredns=/coredns"
	# shellcheck disable=SC2086 # the links are words
	image lab -entrypoint /bin/echo-server -cmd -port -cmd 8080=http "$RUN/build/lab=/bin/lab" "$busybox=/bin/busybox" $links
}

# image NAME ARGUMENTS... makes an archive, and gives it to nodes that are up if it is
# another one than before.
image() {
	local name=$1 file=$RUN/images/$1.tar
	shift
	"$RUN/build/image" -o "$file.new" -name "fairlead.local/$name:1" "$@"
	if cmp -s "$file" "$file.new"; then
		rm "$file.new"
		return
	fi
	mv "$file.new" "$file"
	if any_node; then "$here/load.sh" "$file"; fi
}

any_node() { local node; for node in $NODES; do running "$node" && return; done; return 1; }

control_plane() {
	local in="nsenter --net=$RUN/netns/control-plane" bin=$programs/bin pki=$RUN/pki n=0 node addresses=
	for node in $NODES; do
		n=$((n + 1))
		addresses="$addresses,$node=$(address $n)+$(address6 $n)+127.0.0.1"
	done
	[ -d "$pki" ] || "$RUN/build/pki" -dir "$pki" -server https://127.0.0.1:6443 -node-server "https://$CONTROL_PLANE:6443" \
		-san "localhost,kubernetes,kubernetes.default,kubernetes.default.svc,kubernetes.default.svc.cluster.local,127.0.0.1,10.96.0.1,fd96::1,$CONTROL_PLANE,$CONTROL_PLANE6" \
		-nodes "${addresses#,}"
	start etcd $in "$bin/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380
	start kube-apiserver $in "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
		--bind-address=:: --secure-port=6443 --advertise-address=$CONTROL_PLANE \
		--service-cluster-ip-range=$SERVICE_CIDR --allow-privileged=true --profiling=false \
		--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
		--client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-key-file="$pki/service-accounts.key" --service-account-signing-key-file="$pki/service-accounts.key" \
		--kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
		--kubelet-preferred-address-types=InternalIP \
		--requestheader-client-ca-file="$pki/ca.crt" --proxy-client-cert-file="$pki/apiserver.crt" --proxy-client-key-file="$pki/apiserver.key"
	if ! running forward; then
		# The port of before, if there was one: kubeconfigs that were copied stay right.
		start forward "$RUN/build/forward" -netns "$RUN/netns/control-plane" -to 127.0.0.1:6443 \
			-listen "$(cat "$RUN/address" 2>/dev/null || echo 127.0.0.1:0)" -address-file "$RUN/address"
		wait_for 10 "the way to the API server" test -s "$RUN/address"
		sed "s,^    server: .*,    server: https://$(cat "$RUN/address")," "$pki/admin.kubeconfig" >"$RUN/kubeconfig.new"
		chmod 600 "$RUN/kubeconfig.new"
		mv "$RUN/kubeconfig.new" "$RUN/kubeconfig"
	fi
	wait_for "$WAIT" "the API server" ready kube-apiserver
	start kube-controller-manager $in "$bin/kube-controller-manager" --kubeconfig="$pki/admin.kubeconfig" \
		--kube-api-qps=300 --kube-api-burst=600 --leader-elect=false --bind-address=127.0.0.1 \
		--root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/service-accounts.key" \
		--cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
		--node-monitor-period=1s --node-monitor-grace-period=20s
	start kube-scheduler $in "$bin/kube-scheduler" --kubeconfig="$pki/scheduler.kubeconfig" \
		--leader-elect=false --bind-address=127.0.0.1
}

# ready also fails, and at once, if what it waits for has ended.
ready() {
	running "$1" || die "$1 has ended: $(tail -n 3 "$RUN/logs/$1.log")"
	kube get --raw /readyz >/dev/null 2>&1
}

nodes() {
	local node n=0
	for node in $NODES; do
		n=$((n + 1))
		if running "$node"; then continue; fi
		if [ -d "$RUN/$node" ]; then # it was killed: nothing that the kernel had is left
			node_network "$node" $n
			forget_cgroups "$node"
		fi
		# Registered by us, so that it has the pods' addresses that the routes say. Of one that
		# was killed the last word may be that it is ready: it has to say that anew.
		kube get node "$node" >/dev/null 2>&1 || kube apply -f - >/dev/null <<-EOF
			apiVersion: v1
			kind: Node
			metadata: {name: $node, labels: {kubernetes.io/hostname: $node}}
			spec: {podCIDR: "$(pod_cidr $n)", podCIDRs: ["$(pod_cidr $n)", "$(pod_cidr6 $n)"]}
		EOF
		kube patch node "$node" --subresource=status -p '{"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "Starting"}]}}' >/dev/null
		mkdir -p "$RUN/$node"
		rm -f "$RUN/$node/started"
		start "$node" nsenter --net="$RUN/netns/$node" \
			unshare --cgroup --mount --pid --uts --ipc --fork --kill-child --mount-proc \
			"$here/node.sh" "$node" $n "$programs"
		if version2; then clear_cgroup "$node"; fi
	done
	for node in $NODES; do
		wait_for "$WAIT" "$node to start its programs" started "$node"
	done
}

# forget_cgroups takes away those of a dead node's pods. Kubelet waits three seconds for each,
# twice, before its node is Ready.
forget_cgroups() {
	local at
	for at in $(hierarchies); do
		find "$at/$CLUSTER/$1" -mindepth 1 -depth -type d -exec rmdir {} +
	done
}

# clear_cgroup moves who started a node out of the cgroup that is the node's root, for
# version 2 alone: node.sh does the same for itself and waits for this.
clear_cgroup() {
	local top pid
	top=$(cgroup2)/$CLUSTER/$1
	wait_for 30 "$1 to make its cgroups" test -d "$top/system"
	for pid in $(cat "$top/cgroup.procs"); do echo "$pid" >"$top/system/cgroup.procs" || true; done
}

started() {
	running "$1" || die "$1 has ended: $(tail -n 3 "$RUN/logs/$1.log")"
	[ -f "$RUN/$1/started" ]
}

# node_ready asks for a node's own word: nodes has taken back that of one that it started.
node_ready() {
	state=$(kube get node "$1" -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status}, {.reason}: {.message}{end}' 2>&1) || return
	[ "${state%%,*}" = True ]
}

dns_ready() {
	kube -n kube-system rollout status deployment/coredns --timeout=1s >/dev/null 2>&1 && return
	state=$(kube -n kube-system get pods -l k8s-app=kube-dns -o wide --no-headers 2>&1)
	return 1
}

# wait_for SECONDS WHAT COMMAND... asks until the command says yes. It may say in $state
# what is the matter, which is told now and then.
wait_for() {
	local until=$((SECONDS + $1)) what=$2 begun=$SECONDS told=$SECONDS state=
	shift 2
	until "$@"; do
		[ $SECONDS -lt $until ] || die "waited for $what in vain${state:+ ($state)}; see $RUN/logs, run this again, or take all of it away with hack/cluster/down.sh"
		if [ $((SECONDS - told)) -ge 15 ]; then
			told=$SECONDS
			say "waiting for $what for $((SECONDS - begun)) s${state:+: $state}"
		fi
		sleep 0.1
	done
}

check_machine
programs=$("$here/build.sh")
mkdir -p "$CACHE/locks"
exec 9>"$CACHE/locks/$CLUSTER"
flock -n 9 || { say "waiting for another run"; flock 9; }
settings="PROXY_MODE=$PROXY_MODE CNI=$CNI programs=$programs"
if [ -f "$RUN/settings" ] && [ "$(cat "$RUN/settings")" != "$settings" ]; then
	die "$CLUSTER is up with $(cat "$RUN/settings"), not $settings: take it away first (hack/cluster/down.sh)"
fi
if [ ! -f "$RUN/settings" ] && ! "$here/left.sh" >/dev/null; then
	FAIRLEAD_CLUSTER_LOCKED=$CLUSTER "$here/down.sh" # of one that was not taken away whole
fi
mkdir -p "$RUN"/{logs,bin}
ln -sf "$programs/bin/kubectl" "$RUN/bin/kubectl"
echo "$settings" >"$RUN/settings"
check_inotify
begun=$SECONDS
for name in up control-plane $PROGRAMS $NODES; do make_cgroup "$name"; done
enter_cgroup up # what this starts, down.sh finds, at whatever moment this is killed
network
images
control_plane
nodes
for node in $NODES; do
	wait_for "$WAIT" "$node to be Ready" node_ready "$node"
done
kube apply -f "$here/coredns.yaml" >/dev/null # now that it finds both nodes
wait_for "$WAIT" "the cluster's DNS" dns_ready
say "$CLUSTER is up after $((SECONDS - begun)) s, $settings"
echo "export KUBECONFIG=$RUN/kubeconfig PATH=$RUN/bin:\$PATH"
