#!/bin/sh
# Makes a node ready for ranks: hpctrain-prepare-node [USER [HOST:/PATH]]; again, as last asked.
# Leaves /var/lib/hpctrain/ready, or /var/lib/hpctrain/failed with the last lines of the log.
set -eu
state=/var/lib/hpctrain
venv=/opt/hpctrain/venv
log=/var/log/hpctrain-prepare.log
packages="build-essential nfs-common python3-dev python3-venv rsync"
patience_s=${PATIENCE_S:-900}
pause_s=${PAUSE_S:-10}

mkdir -p "$state"
rm -f "$state/ready" "$state/failed"
exec >"$log" 2>&1
give_up() {
    code=$?
    [ "$code" -eq 0 ] || { echo "exit code $code"; tail -n 20 "$log"; } >"$state/failed"
}
trap give_up EXIT

[ $# -eq 0 ] || printf '%s\n' "$1" "${2:-}" >"$state/asked"
user=$(sed -n 1p "$state/asked")
shared=$(sed -n 2p "$state/asked")

# A node with several network cards has no way out until Terraform has given it an address, some
# time after its boot; cloud-init has given up by then.
retry() {
    end_s=$(($(date +%s) + patience_s))
    until "$@"; do
        [ "$(date +%s)" -lt "$end_s" ] || return 1
        sleep "$pause_s"
    done
}
missing() {
    for each in $packages; do
        dpkg -s "$each" >/dev/null 2>&1 || echo "$each"
    done
}
install_packages() {
    # Without the option a failed update counts as done. Another apt may run at a first boot.
    # shellcheck disable=SC2046 # words are meant
    apt-get update -o APT::Update::Error-Mode=any &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -o DPkg::Lock::Timeout=300 $(missing)
}
[ -z "$(missing)" ] || retry install_packages

if [ -n "$shared" ]; then
    mkdir -p /shared
    grep -q ' /shared ' /etc/fstab || echo "$shared /shared nfs _netdev,nofail 0 0" >>/etc/fstab
    mountpoint -q /shared || retry mount /shared
    chown "$user" /shared
fi

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
if [ -s /etc/hpctrain/requirements.txt ]; then
    # pip may be set to another index: without an answer it is tried all the same.
    retry python3 -c 'import socket; socket.create_connection(("pypi.org", 443), 5)' || :
    # Not from a cache: pip's would fill the small disk with a second copy of torch.
    "$venv/bin/pip" install --no-cache-dir --disable-pip-version-check --retries 10 \
        --constraint /etc/hpctrain/constraints.txt --requirement /etc/hpctrain/requirements.txt
fi
chown -R "$user" /opt/hpctrain
touch "$state/ready"
