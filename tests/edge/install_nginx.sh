#!/usr/bin/env bash
# The tests of the edge and `lstmc bench reliability` run Debian's nginx, each a private one. Install it when it is not there.
set -euo pipefail
PATH=$PATH:/usr/sbin
command -v nginx >/dev/null && exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
echo "Installing nginx for the tests of the edge ..."
as_root apt-get update -qq
# Debian would start a service of it on port 80.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod +x /usr/sbin/policy-rc.d
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
fi
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
