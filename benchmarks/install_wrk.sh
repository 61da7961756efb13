#!/usr/bin/env bash
# `lstmc bench serve` and `bench stream` ask with Debian's wrk. Install it when it is not there.
set -euo pipefail
command -v wrk >/dev/null && exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
echo "Installing wrk for the benchmarks ..." >&2
as_root apt-get update -qq >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk >&2
