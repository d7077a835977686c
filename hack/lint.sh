#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formatting, vet, and the builds that users run: Linux, and what works without
# privileges on macOS.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=$(gofmt -l .)
[ -z "$bad" ] || { echo "not formatted: $bad" >&2; exit 1; }
go vet ./...
GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/fairlead
GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/fairlead
