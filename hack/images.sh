#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the images of Fairlead without a container engine, and prints the archives:
#
#   hack/images.sh                                    fairlead.local/fairlead:dev and /proxy:dev
#   hack/images.sh --registry registry.example --tag v1
#   hack/images.sh --load                             also gives them to the nodes of the test cluster
#   hack/images.sh --out DIR                          default: below the user's cache
#
# fairlead is one static program, for agents and operator. proxy is that and a stock Envoy
# (hack/envoy.sh) with the shared libraries that it names, and nothing else. docker,
# podman, skopeo and "ctr images import" read the archives; the same commit and Envoy give
# the same bytes; fairlead version says which (hack/version.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

registry=fairlead.local tag=dev load= out=
usage() { sed -n '3,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
	case $1 in
	--registry | --tag | --out)
		[ -n "${2:-}" ] || usage
		declare "${1#--}=$2"
		shift
		;;
	--load) load=1 ;;
	*) usage ;;
	esac
	shift
done
out=${out:-${XDG_CACHE_HOME:-$HOME/.cache}/fairlead/images}
mkdir -p "$out"
envoy=$(hack/envoy.sh)
arch=$(go env GOARCH)
version=$(hack/version.sh)

# Beside others that build the same: each in a folder of its own, put in place whole.
build=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 1' HUP INT TERM
CGO_ENABLED=0 GOOS=linux nice go build -trimpath -buildvcs=false -ldflags "-s -w $version" -o "$build/" ./cmd/fairlead ./cmd/fairlead-cni ./hack/image

# libraries prints what a program loads as it starts, as SOURCE=/PATH.
libraries() { ldd "$1" | grep -oE '/[^ ]+' | sort -u | while read -r file; do echo "$(readlink -f "$file")=$file"; done; }

# image NAME ARGUMENTS... makes an archive unless the same is there, and prints its path.
image() {
	local name=$1 file
	file=$out/$1-$(sed 's/[^a-zA-Z0-9._-]/-/g' <<<"$registry-$tag").tar
	shift
	"$build/image" -o "$build/image.tar" -name "$registry/$name:$tag" -arch "$arch" "$@"
	if ! cmp -s "$build/image.tar" "$file"; then mv "$build/image.tar" "$file"; fi
	echo "$file"
	[ -z "$load" ] || hack/cluster/load.sh "$file"
}

# The agent copies the CNI plugin to its node.
image fairlead -entrypoint /bin/fairlead "$build/fairlead=/bin/fairlead" "$build/fairlead-cni=/bin/fairlead-cni"
# shellcheck disable=SC2046 # no path of a library has a blank
image proxy -entrypoint /bin/fairlead -cmd proxy -env PATH=/bin -env ENVOY=/bin/envoy \
	"$build/fairlead=/bin/fairlead" "$envoy=/bin/envoy" $(libraries "$envoy")
