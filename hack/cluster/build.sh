#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and fetches what the test cluster consists of, once, into the user's cache, and
# prints the folder:
#
#   bin/     kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy,
#            kubectl (links to one binary), etcd, coredns
#   debian/  containerd, runc, the CNI plugins and iptables of Debian, unpacked and not
#            installed
#
# The folder's name holds a hash of all that it was made of. Says nothing but the folder
# when there is nothing to do.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

kubernetes=v1.34.4 # as programs/go.mod has it
packages="containerd runc containernetworking-plugins iptables busybox-static"

version=k8s.io/component-base/version
IFS=. read -r major minor _ <<<"${kubernetes#v}"
flags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=$major -X $version.gitMinor=$minor -X $version.gitTreeState=clean"

made_of() { echo "$packages $flags"; cat "$here"/programs/go.* "$here"/programs/*/*.go; go env GOVERSION GOARCH; }
command -v go >/dev/null || { echo "building Kubernetes needs Go; install the version that go.mod names" >&2; exit 1; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fairlead
dir=$cache/kubernetes-${kubernetes#v}-$(made_of | sha256sum | cut -c1-12)
say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }

grep -q "k8s.io/kubernetes $kubernetes\$" "$here/programs/go.mod" || die "programs/go.mod has another Kubernetes than build.sh ($kubernetes)"
if [ -f "$dir/complete" ]; then
	echo "$dir"
	exit 0
fi
command -v apt-get >/dev/null || die "containerd comes from Debian's packages: this needs apt-get"
mkdir -p "$dir/bin"
exec 9>"$dir/lock"
flock -n 9 || { say "another build is at work on $dir: waiting for it"; flock 9; }
[ ! -f "$dir/complete" ] || { echo "$dir"; exit 0; }
rm -rf "$dir"/debs.* "$dir/debian.new" # of a run that was killed

# Tells every half a minute that what takes long is still at work.
ticking() {
	local what=$1 begun=$SECONDS ticker
	shift
	(
		while :; do
			sleep 30 &
			trap "kill $!; exit" TERM
			wait
			say "still $what ($((SECONDS - begun)) s)"
		done
	) 9>&- &
	ticker=$!
	"$@" || { kill "$ticker"; die "$what went wrong, see above; what was compiled so far is kept, so run it again"; }
	kill "$ticker"
	say "$what took $((SECONDS - begun)) s"
}

build() {
	CGO_ENABLED=0 GOOS=linux GOWORK=off nice -n 19 go build -C "$here/programs" -trimpath -buildvcs=false -ldflags "$flags" -o "$dir/bin/$1" "$2"
}
if [ ! -x "$dir/bin/hyperkube" ]; then
	say "building Kubernetes $kubernetes (once; 8 to 25 minutes on 2 cores, 3 GB of Go's cache)"
	ticking "building Kubernetes" build hyperkube ./hyperkube
fi
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
	ln -sf hyperkube "$dir/bin/$program"
done
[ -x "$dir/bin/etcd" ] || ticking "building etcd" build etcd go.etcd.io/etcd/server/v3
[ -x "$dir/bin/coredns" ] || ticking "building CoreDNS" build coredns ./coredns

# Downloaded and unpacked only: nothing of it runs on this machine by itself.
unpack() {
	local debs
	debs=$(mktemp -d "$dir/debs.XXXXXX")
	mkdir "$debs/partial"
	# apt fetches as a user of its own, who cannot write there; root does.
	apt-get install -qq --download-only --reinstall --no-install-recommends -y \
		-o APT::Sandbox::User=root -o Dir::Cache::archives="$debs" $packages >&2 || return 1
	rm -rf "$dir/debian.new"
	for deb in "$debs"/*.deb; do dpkg -x "$deb" "$dir/debian.new"; done
	rm -rf "$debs" "$dir/debian"
	mv "$dir/debian.new" "$dir/debian"
}
if [ ! -d "$dir/debian" ]; then
	say "fetching $packages"
	unpack || { apt-get update -qq >&2; unpack; } || die "cannot fetch Debian's packages ($packages); is this root on Debian, with its package sources at hand?"
fi
touch "$dir/complete"
echo "$dir"
