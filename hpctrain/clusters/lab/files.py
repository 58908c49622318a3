"""The files of a lab: hostfile, ssh's and sshd's configuration, each node's first script. Pure."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from urllib.parse import quote

from hpctrain.clusters.lab.plan import LabNode, LabPlan

KEY, SSHD_CONFIG, KNOWN_HOSTS, HOSTS = "id", "sshd_config", "known_hosts", "hosts"
# PIDs repeat between nodes, and Open MPI names folders in TMPDIR by them: one for each node.
NODE_TMPDIR = "/run/tmp"
LONGEST_LAYER_NAME = 200  # of 255, what a file may be called
NODE_SSH_CONFIG = "node_ssh_config"
MACHINE_FILES = {HOSTS: "/etc/hosts", NODE_SSH_CONFIG: "/etc/ssh/ssh_config"}


def node_folder(plan: LabPlan, node: str) -> str:
    """Return where a node's own files lie."""
    return f"{plan.folder}/nodes/{node}"


def render_lab_hostfile(plan: LabPlan) -> str:
    """Return the hostfile."""
    head = f"# Made by hpctrain: the nodes of {plan.name}, on this machine. Names: ssh_config.\n"
    width = max(len(node.host_name) for node in plan.nodes)
    return head + "".join(f"{node.host_name:{width}} slots={node.slots}\n" for node in plan.nodes)


def render_hosts(plan: LabPlan) -> str:
    """Return /etc/hosts of the nodes: Hydra's nodes look for the launcher by its name."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{plan.machine_address} {plan.machine_name}"]
    lines += [f"{node.address} {node.host_name} {node.name}" for node in plan.nodes]
    return "\n".join(lines) + "\n"


def render_lab_ssh_config(plan: LabPlan) -> str:
    """Return what ssh must know to reach the nodes, from this machine and from each other."""
    blocks = ["# Made by hpctrain. By hand: ssh -F this-file NODE"]
    for node in plan.nodes:
        blocks.append(
            f"Host {node.host_name} {node.name} {node.address}\n"
            f"  HostName {node.address}\n"
            f"  HostKeyAlias {node.host_name}"
        )
    quoted = " ".join(f"{node.host_name} {node.name} {node.address}" for node in plan.nodes)
    blocks.append(
        f"Host {quoted}\n"
        "  User root\n"
        f'  IdentityFile "{plan.folder}/{KEY}"\n'
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f'  UserKnownHostsFile "{plan.folder}/{KNOWN_HOSTS}"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  LogLevel ERROR"
    )
    return "\n".join(blocks) + "\n"


def render_known_hosts(host_keys: Mapping[str, str]) -> str:
    """Return known_hosts from each node's public key, by host name."""
    return "".join(f"{host} {' '.join(key.split()[:2])}\n" for host, key in host_keys.items())


def render_sshd_config(plan: LabPlan) -> str:
    """Return what the nodes' sshd share."""
    return (
        f'AuthorizedKeysFile "{plan.folder}/{KEY}.pub"\n'
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "StrictModes no\n"  # the keys' folders are this machine's, whoever owns them
        "UsePAM no\n"
        "UseDNS no\n"
        "PidFile none\n"
        "PrintMotd no\n"
        "MaxStartups 200\n"
        "MaxSessions 200\n"
        f"SetEnv TMPDIR={NODE_TMPDIR}\n"
    )


def render_init(plan: LabPlan, node: LabNode) -> str:
    """Return the script that is a node's first process: with it everything in the node ends."""
    own = node_folder(plan, node.name)
    private = plan.options.private_disk
    disk = _render_private_disk(plan, own) if private else ["mount -t proc proc /proc"]
    lines = [
        "#!/bin/sh",
        f"# Made by hpctrain: the first process of {node.host_name}.",
        "set -eu",
        f"umask 022; cd {_q(own)}",
        *disk,
        "mount -t sysfs sysfs /sys",
        f"echo {node.host_name} > /proc/sys/kernel/hostname",
        # As on nearly every cluster. This machine may have BBR, which after two senders have shared
        # a link goes on with the half of it: an exchange whose partners change took a third longer.
        # The kernel may let only the machine itself choose cubic; reno it never forbids.
        "for way in cubic reno; do",
        "  (echo $way > /proc/sys/net/ipv4/tcp_congestion_control) 2>/dev/null && break",
        "done",
        "mount -t tmpfs -o mode=1777 shm /dev/shm",
        "mount -t tmpfs -o mode=755 run /run",
        f"mkdir -p /run/sshd /run/lock; mkdir -m 1777 {NODE_TMPDIR}",
        *(f"[ ! -e {there} ] || mount --bind {_q(f'{plan.folder}/{name}')} {there}"
          for name, there in MACHINE_FILES.items()),
        # MPIs and NCCL take processes with one boot_id or machine-id for those of one machine.
        f"mount --bind {_q(f'{own}/boot_id')} /proc/sys/kernel/random/boot_id",
        f"[ ! -e /etc/machine-id ] || mount --bind {_q(f'{own}/machine-id')} /etc/machine-id",
        # Without PAM, sshd lets nobody in whose password is locked, which root's often is.
        "if [ -r /etc/shadow ]; then",
        "  umask 077; sed 's/^root:[^:]*:/root:*:/' /etc/shadow > /run/shadow; umask 022",
        "  mount --bind /run/shadow /etc/shadow",
        "fi",
        "cd /",
        f'"$(command -v sshd)" -D -e -f {_q(f"{plan.folder}/{SSHD_CONFIG}")} '
        f"-o {_q(f'HostKey={own}/hostkey')} &",
        "set +e",
        # A node goes on without its sshd, as a machine does; waiting reaps orphans meanwhile.
        'while :; do sleep 86400 & wait "$!"; done',
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _render_private_disk(plan: LabPlan, own: str) -> list[str]:
    """Lay a writable layer of the node's own over each of this machine's file systems.

    The layers lie on the cluster's disk, or in memory where an overlay cannot be put on that
    (it is one itself in most containers).
    """
    lines = [
        f"disk={_q(f'{own}/disk')}; root=$disk/root",
        "layer() {  # the file system at $1, layered under the name $2, to $3",
        '  mkdir -p "$disk/upper-$2" "$disk/work-$2"',
        '  mount -t overlay overlay -o "lowerdir=$1,upperdir=$disk/upper-$2,'
        'workdir=$disk/work-$2" "$3"',
        "}",
        'mkdir -p "$root"',
        'if ! layer / root "$root" 2>/dev/null; then',
        '  mount -t tmpfs -o mode=755 disk "$disk"; mkdir -p "$root"; layer / root "$root"',
        "fi",
    ]
    for disk in plan.disks:
        if disk.path == "/":
            continue
        here, there = _q(disk.path), f'"$root"{_q(disk.path)}'
        as_it_is = f"mount --bind -o ro {here} {there} || echo {here} is missing >&2"
        fits = disk.is_folder and not set(disk.path) & set(",:\\")
        name = _q(_layer_name(disk.path))
        lines.append(f"layer {here} {name} {there} || {as_it_is}" if fits else as_it_is)
    hidden = [
        path if path.startswith("/") else f"{plan.working_folder}/{path}"
        for path in plan.options.hide
    ]
    hide = []
    for path in hidden:
        layer = f'"$disk"/{_q(f"hidden-{_layer_name(path)}")}'
        lines.append(f"mkdir -p {layer}")
        # Only once the node has its own root: before, a link would lead to this machine's disk.
        hide.append(f"mkdir -p {_q(path)}; mount --bind /run/before{layer} {_q(path)}")
    lines += [
        'mount --rbind /dev "$root/dev"',
        'mount -t tmpfs run "$root/run"; mkdir "$root/run/before"',
        'cd "$root"; pivot_root . run/before; cd /',
        *hide,
        "mount -t proc proc /proc",  # umount asks it
        "umount -l /run/before; umount -l /run",
    ]
    return lines


def _layer_name(path: str) -> str:
    """Return one name for each path, and the same one when a node starts again on its old disk."""
    name = quote(path.strip("/"), safe="")
    return name if len(name) < LONGEST_LAYER_NAME else hashlib.sha256(path.encode()).hexdigest()


def _q(text: str) -> str:
    return shlex.quote(text)
