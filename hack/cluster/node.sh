#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first process of a node of the test cluster: arranges what the node sees, starts
# containerd, kubelet and kube-proxy, and keeps them running. up.sh starts it in
# namespaces of its own: node.sh NODE NUMBER PROGRAMS. When it is killed the node is gone
# with all that was mounted and started in it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

# arrange makes the parts of the file system that a node has for itself.
arrange() {
	local dir at file options own=$RUN/$node
	hostname "$node"
	# What is written below these, by whoever it is, stays within the node.
	for dir in etc opt var; do
		mkdir -p "/$dir" "$own/$dir/upper" "$own/$dir/work"
		mount -t overlay -o "lowerdir=/$dir,upperdir=$own/$dir/upper,workdir=$own/$dir/work" overlay "/$dir"
	done
	# An overlay is no place for the layers of another one.
	for dir in var/lib/containerd var/lib/kubelet; do
		mkdir -p "/$dir" "$own/$dir"
		mount --bind "$own/$dir" "/$dir"
	done
	rm -rf "$own/run"
	mkdir -p "$own/run/$CLUSTER" "$RUN/programs"
	mount --bind "$programs" "$RUN/programs"
	mount --rbind "$RUN" "$own/run/$CLUSTER"
	mount --rbind "$own/run" /run
	cgroups=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $3, $2, $4 }' /proc/self/mounts | sort -u)
	mount -t sysfs sysfs /sys
	mount -t bpf bpf /sys/fs/bpf
	[ ! -d /sys/kernel/tracing ] || mount -t tracefs tracefs /sys/kernel/tracing
	mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
	while read -r type at options; do
		# In the node's cgroup namespace its own cgroup is the root.
		mkdir -p "$at"
		if [ "$type" = cgroup2 ]; then
			mount -t cgroup2 cgroup2 "$at"
		else
			mount -t cgroup -o "$(tr , '\n' <<<"$options" | grep -Ev '^(rw|ro|.*atime|nosuid|nodev|noexec|release_agent=.*)$' | paste -sd,)" cgroup "$at"
		fi
	done <<<"$cgroups"
	if version2; then
		# What has processes cannot share out to pods.
		mkdir -p /sys/fs/cgroup/system
		echo $$ >/sys/fs/cgroup/system/cgroup.procs
		while [ "$(cat /sys/fs/cgroup/cgroup.procs)" ]; do sleep 0.1; done # up.sh moves who started this
	fi
	# Kubelet sets these, and they are the machine's: ordinary files take it.
	for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
		mkdir -p "$own/sysctl/$(dirname "$file")"
		cat "/proc/sys/$file" >"$own/sysctl/$file"
		mount --bind "$own/sysctl/$file" "/proc/sys/$file"
	done
	# Kubelet and containerd hand mounts on. From here on, so that what was mounted at two
	# places above does not show them twice.
	mount --make-rshared /
}

configure() {
	local debian=$RUN/programs/debian ranges
	mkdir -p /etc/cni/net.d /etc/kubernetes /opt/cni/bin /var/lib/cni
	cp -n "$debian"/usr/lib/cni/* /opt/cni/bin/
	ranges='[[{"subnet":"'$(pod_cidr "$number")'"}],[{"subnet":"'$(pod_cidr6 "$number")'"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]'
	case $CNI in
	ptp) plugin='"type":"ptp","ipMasq":false' ;;
	bridge) plugin='"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipMasq":false' ;;
	esac
	# Anew at each start, as most CNI plugins do.
	cat >/etc/cni/net.d/10-fairlead-test.conflist <<-EOF
		{"cniVersion": "1.0.0", "name": "fairlead-test", "plugins": [
		  {$plugin, "ipam": {"type": "host-local", "ranges": $ranges}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}
		]}
	EOF
	cat >/etc/kubernetes/containerd.toml <<-EOF
		version = 2
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "fairlead.local/pause:1"
		  disable_tcp_service = true
		  # Goes with the node, not with the machine.
		  netns_mounts_under_state_dir = true
		  # Without CAP_SYS_RESOURCE no process may get a lower score than its parent's.
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      SystemdCgroup = false
		      BinaryName = "$debian/usr/sbin/runc"
	EOF
	cat >/etc/kubernetes/kubelet.yaml <<-EOF
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
		authorization: {mode: Webhook}
		tlsCertFile: $RUN/pki/$node.crt
		tlsPrivateKeyFile: $RUN/pki/$node.key
		cgroupDriver: cgroupfs
		failSwapOn: false
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		clusterDomain: cluster.local
		clusterDNS: [$DNS]
		resolvConf: ""
		# The machine is somebody's: how full its disk is says nothing about the pods.
		evictionHard: {memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
		imageGCHighThresholdPercent: 100
		imageGCLowThresholdPercent: 99
		nodeStatusUpdateFrequency: 2s
		nodeStatusReportFrequency: ${NODE_REPORT:-2s}
		syncFrequency: 10s
		serializeImagePulls: true
		# Nodes die by SIGKILL, in tests of just that.
		shutdownGracePeriod: 0s
	EOF
	cat >/etc/kubernetes/proxy.yaml <<-EOF
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: $PROXY_MODE
		clientConnection: {kubeconfig: $RUN/pki/proxy.kubeconfig}
		hostnameOverride: $node
		clusterCIDR: $CLUSTER_CIDR
		iptables: {minSyncPeriod: 0s}
		nftables: {minSyncPeriod: 0s}
		# These limits are the machine's.
		conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
	EOF
}

# keep NAME COMMAND... runs a program again whenever it ends.
keep() {
	local name=$1 code
	shift
	while :; do
		code=0
		"$@" >>"$RUN/logs/$name-$node.log" 2>&1 || code=$?
		echo "$name ended with $code; it starts again in a second" >>"$RUN/logs/$name-$node.log"
		sleep 1
	done
}

main() {
	node=$1 number=$2 programs=$3
	arrange
	configure
	local debian=$RUN/programs/debian libraries
	# The stock iptables, as unpacked: its links are made at installation otherwise.
	libraries=$(echo "$debian"/usr/lib/*-linux-gnu)
	mkdir -p "$RUN/$node/bin"
	for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
		printf '#!/bin/sh\nLD_LIBRARY_PATH=%s XTABLES_LIBDIR=%s/xtables exec %s/usr/sbin/%s "$@"\n' \
			"$libraries" "$libraries" "$debian" "${name/tables/tables-nft}" >"$RUN/$node/bin/$name"
		chmod +x "$RUN/$node/bin/$name"
	done
	export PATH=$RUN/$node/bin:$RUN/programs/bin:$debian/usr/bin:$debian/usr/sbin:$PATH
	keep containerd containerd -c /etc/kubernetes/containerd.toml &
	until ctr version >/dev/null 2>&1; do sleep 0.1; done
	for image in "$RUN"/images/*.tar; do ctr -n k8s.io images import "$image"; done
	keep kubelet kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig="$RUN/pki/$node.kubeconfig" \
		--hostname-override="$node" --node-ip="$(address "$number"),$(address6 "$number")" --v=2 &
	keep kube-proxy kube-proxy --config=/etc/kubernetes/proxy.yaml --v=2 &
	touch "$RUN/$node/started"
	# Takes in what has lost its parent, as a first process must.
	wait
}

# Read to its end before any of it runs: a change of this file does not reach nodes that
# are up.
main "$@"
exit
