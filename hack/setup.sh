#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what demo and tests need and fetches Envoy. Does nothing, quickly, where
# all of it is there. With TOOLS=1 also the compiler that rebuilds the eBPF objects.
set -euo pipefail
cd "$(dirname "$0")/.."

need=()
have() { command -v "$1" >/dev/null || need+=("$2"); }
have ip iproute2
have nft nftables
have curl curl
have unzip unzip
have python3 python3
command -v pip >/dev/null || command -v pip3 >/dev/null || need+=(python3-pip)
if [ "${TOOLS:-}" = 1 ]; then
	have clang-19 clang-19
	have llvm-strip-19 llvm-19
	[ -f /usr/include/bpf/bpf_helpers.h ] || need+=(libbpf-dev)
	[ -f /usr/include/linux/bpf.h ] || need+=(linux-libc-dev)
fi
if [ ${#need[@]} -gt 0 ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "missing: ${need[*]}; install them, or run this as root on Debian" >&2
		exit 1
	fi
	echo "installing ${need[*]}" >&2
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi
hack/envoy.sh >/dev/null
