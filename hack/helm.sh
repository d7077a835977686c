#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of a Helm: $HELM, else the one on PATH, else a pinned stock one, built
# once from its own module (hack/helm/go.mod) and kept in the user's cache.
# Says nothing but the path when there is nothing to build.
set -euo pipefail

if [ -n "${HELM:-}" ]; then
	[ -x "$HELM" ] || { echo "HELM=$HELM is not an executable file" >&2; exit 1; }
	printf '%s\n' "$HELM"
	exit 0
fi
if command -v helm; then
	exit 0
fi

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^\thelm.sh\/helm\/v4 \(v[^ ]*\).*/\1/p' "$here/helm/go.mod")
dir=${XDG_CACHE_HOME:-$HOME/.cache}/fairlead/helm-${version#v}
if [ ! -x "$dir/helm" ]; then
	command -v go >/dev/null || { echo "building Helm $version needs Go; install it, or set HELM to a binary" >&2; exit 1; }
	echo "building Helm $version into $dir (once; 1 to 8 minutes on 2 cores)" >&2
	mkdir -p "$dir"
	tmp=$(mktemp -d "$dir/build.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	flags="-s -w -X helm.sh/helm/v4/internal/version.version=$version -X helm.sh/helm/v4/internal/version.gitTreeState=clean"
	CGO_ENABLED=0 GOWORK=off nice -n 19 go build -C "$here/helm" -trimpath -buildvcs=false -ldflags "$flags" -o "$tmp/helm" helm.sh/helm/v4/cmd/helm
	mv -f "$tmp/helm" "$dir/helm" # same file system: atomic, also with another run beside us
fi
printf '%s\n' "$dir/helm"
