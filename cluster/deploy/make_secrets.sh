#!/usr/bin/env bash
# The secrets that compose.yaml hands to its containers, one file each: make_secrets.sh DIR. Existing ones are kept.
# The folder is closed to everybody else; the files in it are not, since each container reads its own as another user.
set -euo pipefail
folder=${1:?give a folder for the secrets}
umask 077
mkdir -p "$folder"
chmod 0700 "$folder"

secret() { # NAME CONTENT
    if [ ! -e "$folder/$1" ]; then
        printf '%s\n' "$2" >"$folder/$1"
        chmod 0444 "$folder/$1"
    fi
}
word() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

secret ray_token "$(word)"
secret grafana_password "$(word)"
secret postgres_password "$(word)"
secret redis_password "$(word)"
secret ledger_url "postgresql://lstmc:$(cat "$folder/postgres_password")@postgres:5432/ledger"
secret redis.conf "requirepass $(cat "$folder/redis_password")
appendonly yes
appendfsync everysec
dir /data"
