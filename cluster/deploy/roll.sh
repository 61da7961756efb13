#!/usr/bin/env bash
# Rolls this machine to another revision, and back when it does not become healthy: roll.sh REVISION, as the user that
# owns the checkout, with LSTMC_HOME. 0: the new one serves; 1: the old one serves again; 2: neither does.
# Code alone rolls without a failed request; other packages need a restart, so the head is away for about half a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."
revision=${1:?give the revision to roll to}
lstmc=${LSTMC:-.venv/bin/lstmc}
backups=${LSTMC_BACKUPS:-/var/lib/lstmc-backups}
url=${LSTMC_URL:-http://127.0.0.1:8000}
patience=${LSTMC_PATIENCE:-60} # looks, five seconds apart
pause=${LSTMC_PAUSE:-5}

healthy() { # three good looks in a row, so that one answer of a dying replica is not enough
    local good=0
    for ((look = 0; look < patience; look++)); do
        if curl --fail --silent --max-time 5 --output /dev/null "$url/readyz"; then
            good=$((good + 1))
            [ "$good" -ge 3 ] && return 0
        else
            good=0
        fi
        sleep "$pause"
    done
    echo "not healthy after $patience looks at $url/readyz" >&2
    return 1
}

switch_to() {
    local before
    before=$(git rev-parse HEAD)
    git checkout --quiet --detach "$1" || return 1
    if git diff --quiet "$before" "$1" -- requirements.lock pyproject.toml configs cluster/nodes.py; then
        "$lstmc" roll || return 1
    else
        make install && sudo systemctl restart lstmc-head || return 1
    fi
    healthy
}

git fetch --quiet --tags origin
old=$(git rev-parse HEAD)
new=$(git rev-parse --verify "$revision^{commit}")
"$lstmc" backup --out "$backups/before-$(date -u +%Y%m%dT%H%M%SZ)-${new:0:12}.tar.gz"
if switch_to "$new"; then
    echo "rolled from ${old:0:12} to ${new:0:12}"
    exit 0
fi
echo "rolling back to ${old:0:12}" >&2
if switch_to "$old"; then
    exit 1
fi
echo "the old revision is not healthy, either: see lstmc status, and docs/deployment.md about restoring" >&2
exit 2
