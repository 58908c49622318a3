#!/bin/sh
# Makes a fresh node ready for ranks: hpctrain-prepare-node USER [HOST:/PATH]
# Leaves /var/lib/hpctrain/ready, or /var/lib/hpctrain/failed with the last lines of the log.
set -eu
user=$1
shared=${2:-}
state=/var/lib/hpctrain
venv=/opt/hpctrain/venv
log=/var/log/hpctrain-prepare.log

mkdir -p "$state"
rm -f "$state/ready" "$state/failed"
exec >"$log" 2>&1
give_up() {
    code=$?
    [ "$code" -eq 0 ] || { echo "exit code $code"; tail -n 20 "$log"; } >"$state/failed"
}
trap give_up EXIT

if [ -n "$shared" ]; then
    mkdir -p /shared
    grep -q ' /shared ' /etc/fstab || echo "$shared /shared nfs _netdev,nofail 0 0" >>/etc/fstab
    mountpoint -q /shared || mount /shared
    chown "$user" /shared
fi

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
if [ -s /etc/hpctrain/requirements.txt ]; then
    # Not from a cache: pip's would fill the small disk with a second copy of torch.
    "$venv/bin/pip" install --no-cache-dir --disable-pip-version-check --retries 10 \
        --constraint /etc/hpctrain/constraints.txt --requirement /etc/hpctrain/requirements.txt
fi
chown -R "$user" /opt/hpctrain

# What `hpctrain cluster up` compares between the nodes.
{
    "$venv/bin/python" -c 'import platform; print("python", platform.python_version())'
    "$venv/bin/pip" list --format freeze --disable-pip-version-check
} >"$state/versions"
touch "$state/ready"
