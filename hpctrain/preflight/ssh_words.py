"""Which step of a login failed, by ssh's own last words. Pure.

Sources of the wordings: the messages of OpenSSH's client (ssh.c, sshconnect.c, sshconnect2.c,
kex.c, misc.c of OpenSSH 9.2), of which tests/unit/test_preflight_reach.py holds captured ones.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from hpctrain.launch.ssh_config import host_alias

# The steps of a login, in their order.
NAME, ROUTE, PORT, SERVER = "name", "route", "port", "server"
HOST_KEY, LOGIN, SHELL, PYTHON = "host key", "login", "shell", "python"
HPCTRAIN, ANSWER, CLIENT = "hpctrain", "answer", "ssh client"


class Broken(NamedTuple):
    """Where the way to a host ends: the step, what was found there, and what mends it."""

    step: str
    found: str
    fix: str


class SshTarget(NamedTuple):
    """Where ssh would go, as ``ssh -G`` tells it.

    Args:
        via: a jump host or proxy command.
        config: the configuration file that ssh needs by hand; "" for the user's own.
    """

    host: str
    port: int
    user: str
    via: str
    config: str = ""


def parse_ssh_target(text: str) -> SshTarget | None:
    """Return where ssh would go, from the output of ``ssh -G``.

    >>> parse_ssh_target("user ada\\nhostname 10.0.0.7\\nport 22\\nproxyjump head\\n")
    SshTarget(host='10.0.0.7', port=22, user='ada', via='head', config='')
    """
    settings: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), value.strip())
    if not settings.get("hostname"):
        return None
    port = settings.get("port", "22")
    hops = (settings.get(key, "none") for key in ("proxyjump", "proxycommand"))
    via = next((hop for hop in hops if hop not in ("", "none")), "")
    return SshTarget(
        settings["hostname"], int(port) if port.isdigit() else 22, settings.get("user", ""), via
    )


INSTALL_CLIENT = "apt-get install openssh-client, or dnf install openssh-clients"
# Debian calls the service ssh, Red Hat and SUSE sshd.
_FIXES = {
    NAME: "name its address in the ssh_config beside the hostfile (HostName 10.0.0.7), or look: "
    "getent hosts {host}",
    ROUTE: "is the host up, and in a network of this machine? ip route get {host}",
    PORT: "open it in the firewall or security group, or give port= in the hostfile; then: "
    "nc -vz -w 5 {host} {port}",
    SERVER: "on {host}: systemctl status 'ssh*'; journalctl -n 20 -u ssh -u sshd",
    HOST_KEY: "once its fingerprint is known: ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts",
    LOGIN: "ssh-copy-id -p {port} {user}{host}",
    SHELL: "the last field must be a login shell, on {host}: getent passwd {name}",
    CLIENT: INSTALL_CLIENT,
}
_NOT_RUNNING = (
    "give its port in the hostfile ({alias} port=2222), or on {host}: systemctl start ssh || "
    "systemctl start sshd"
)
_OTHER_KEY = "its host key is another than known_hosts holds: installed anew, or another machine"
_CHANGED = "ssh-keygen -R {lookup}; ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts"
_BUSY = "on {host}: raise MaxStartups in sshd_config; is {user}{host} allowed in hosts.allow?"
_OLD = "update ssh on the older side, or allow it in ssh_config: {hint}"
_KEY_FILE = "chmod 600 on the file that ssh names"

# (pattern over ssh's whole words, step, what it means, fix if not the step's own); first match.
_WORDS: tuple[tuple[str, str, str, str], ...] = (
    (r"Could not resolve hostname (\S+): (.+)", NAME, "{1} has no address: {2}", ""),
    (r"Bad configuration option|Bad owner or permissions on (.+)", CLIENT,
     "ssh refuses its configuration", "{ssh} -G"),
    (r"open failed: connect failed: (.+)", PORT,
     "the jump host cannot reach it: {1}", "on the jump host: nc -vz -w 5 {host} {port}"),
    (r'REMOTE HOST IDENTIFICATION HAS CHANGED[\s\S]*?(ssh-keygen -f \S+ -R \S+)', HOST_KEY,
     _OTHER_KEY, "{1}; ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts"),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", HOST_KEY,
     _OTHER_KEY, _CHANGED),
    (r"UNPROTECTED PRIVATE KEY FILE|bad permissions", LOGIN,
     "others may read the private key, so ssh does not use it", _KEY_FILE),
    (r"No (\S+) host key is known for", HOST_KEY, "its {1} host key is not in known_hosts", ""),
    (r"Host key verification failed", HOST_KEY, "its host key is not in known_hosts", ""),
    (r"Permission denied \(([^)]*)\)", LOGIN, "no key of this user is accepted ({1})", ""),
    (r"Too many authentication failures", LOGIN,
     "the agent offers too many keys before the right one",
     "IdentitiesOnly yes and IdentityFile in ssh_config"),
    (r"no matching ([a-z ]+) found\. Their offer: (\S+)", SERVER,
     "both sides have no {1} in common; it offers {2}", _OLD),
    (r"during banner exchange|banner exchange: .*(timed out|invalid)", SERVER,
     "the port is open, but no ssh server speaks there", ""),
    (r"kex_exchange_identification|ssh_exchange_identification", SERVER,
     "the ssh server hangs up before it says a word: too many logins at once, or a filter", _BUSY),
    (r"System is booting up|nologin", SHELL, "logins are off there at the moment", ""),
    (r"This account is currently not available", SHELL, "the account has no login shell", ""),
    (r"No route to host|Network is unreachable", ROUTE, "no route to it", ""),
    (r"Connection refused", PORT, "nothing listens on port {port}", _NOT_RUNNING),
    (r"Connection timed out|Operation timed out", PORT,
     "no answer on port {port}: the host is off, or a firewall drops it", ""),
    (r"Timeout, server \S+ not responding", ROUTE, "the connection went silent", ""),
    (r"Connection (?:closed|reset) by", SERVER, "the ssh server hangs up", ""),
)  # fmt: skip


def parse_ssh_words(words: str, alias: str, target: SshTarget | None = None) -> Broken | None:
    """Return which step failed, by what ssh wrote to stderr; None where that does not tell.

    Args:
        alias: the host's name as ssh was given it.
        target: where ssh went, to word the fix.

    >>> parse_ssh_words("ada@n1: Permission denied (publickey).", "n1").step
    'login'
    """
    for pattern, step, meaning, fix in _WORDS:
        match = re.search(pattern, words)
        if match:
            found = meaning
            for number, group in enumerate(match.groups(), start=1):
                found = found.replace(f"{{{number}}}", (group or "").strip())
                fix = fix.replace(f"{{{number}}}", (group or "").strip())
            return broken_at(step, found, alias, target, fix)
    return None


def broken_at(step: str, found: str, alias: str, target: SshTarget | None, fix: str = "") -> Broken:
    """Return a broken step whose texts name the host.

    Args:
        fix: in place of the step's own.
    """
    where = target or SshTarget(alias, 22, "", "")
    # known_hosts names a host with another port as [host]:port.
    lookup = where.host if where.port == 22 else f"'[{where.host}]:{where.port}'"
    names = {
        "alias": alias, "host": where.host, "port": str(where.port), "name": where.user or "USER",
        "user": f"{where.user}@" if where.user else "", "lookup": lookup,
        "hint": "HostKeyAlgorithms +ssh-rsa", "ssh": ssh_by_hand(alias, where),
    }  # fmt: skip

    def fill(text: str) -> str:
        return re.sub(r"\{([a-z]+)\}", lambda m: names.get(m[1], m[0]), text)

    through = f" (through {where.via})" if where.via else ""
    return Broken(step, fill(found) + through, fill(fix or _FIXES.get(step, "")))


def ssh_by_hand(alias: str, target: SshTarget) -> str:
    """Return how a person logs in there, with what only our own configuration knew.

    >>> ssh_by_hand("n1", SshTarget("10.0.0.7", 2222, "ada", "", "/lab/ssh_config"))
    'ssh -F /lab/ssh_config -p 2222 ada@n1'
    """
    words = ["ssh", *(("-F", target.config) if target.config else ())]
    words += ["-p", str(target.port)] if target.port != 22 else []
    # An alias that stands for an IPv6 address is known in our own configuration alone.
    name = target.host if alias == host_alias(target.host) else alias
    return shlex.join([*words, f"{target.user}@{name}" if target.user else name])
