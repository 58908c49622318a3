"""Walk the way to a host that did not answer, step by step, until it ends.

Asked in parallel, and only of hosts that did not answer: a step costs up to its time limit.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence

import hpctrain
from hpctrain.executor import Command, Completed, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.ssh_words import (
    ANSWER,
    CLIENT,
    HPCTRAIN,
    LOGIN,
    NAME,
    PORT,
    PYTHON,
    ROUTE,
    SHELL,
    Broken,
    SshTarget,
    broken_at,
    parse_ssh_target,
    parse_ssh_words,
)

CONNECT_TIMEOUT_S = 5.0
LOGIN_TIMEOUT_S = 20.0
MAX_ADDRESSES = 4
SSH_FAILED, TIMED_OUT, NOT_FOUND = 255, 124, (126, 127)
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def find_broken_steps(
    hosts: Mapping[str, Contact],
    ssh_options: Sequence[str],
    python: str,
    executor: Executor | None = None,
    *,
    ssh_config: str = "",
) -> dict[str, Broken]:
    """Return for each host where the way to it ends.

    Args:
        hosts: those that did not answer, with how asking them went.
        python: the interpreter that was asked for there.
        ssh_config: the file that a person's ssh needs to reach them, if any.
    """
    here = executor or LocalExecutor()
    options = tuple(ssh_options)
    names = list(hosts)
    found = run_on_all(
        lambda host: find_broken_step(host, hosts[host], options, python, here, ssh_config), names
    )
    return dict(zip(names, found, strict=True))


def find_broken_step(
    host: str, contact: Contact, ssh_options: tuple[str, ...], python: str, here: Executor,
    ssh_config: str = "",
) -> Broken:  # fmt: skip
    """Return where the way to one host ends."""
    alias = host_alias(host)
    config = here.run(Command(("ssh", "-G", *ssh_options, "--", alias)), timeout_s=LOGIN_TIMEOUT_S)
    if config.returncode in NOT_FOUND:
        return broken_at(CLIENT, "no ssh on PATH here", alias, None)
    if not config.ok:
        found = f"ssh refuses its configuration: {config.last_words}"
        target = SshTarget(alias, 22, "", "", ssh_config)
        return broken_at(CLIENT, found, alias, target, "{ssh} -G")
    target = parse_ssh_target(config.stdout) or SshTarget(alias, 22, "", "")
    target = target._replace(config=ssh_config)
    if contact.returncode not in (SSH_FAILED, TIMED_OUT):
        return judge_words_there(contact, alias, target, python)
    # Behind a jump host only ssh itself can look.
    ends = None if target.via else _knock(target, alias)
    ends = ends or parse_ssh_words(contact.words, alias, target)
    return ends or _try_login(alias, target, ssh_options, contact, here)


def judge_words_there(contact: Contact, alias: str, target: SshTarget, python: str) -> Broken:
    """Return what is missing on a host where ssh logged in. Pure."""
    words = contact.words
    if contact.returncode in NOT_FOUND:
        return broken_at(
            PYTHON, f"no {python} there", alias, target,
            f"make the same environment there, at the same path: {{ssh}} ls -l {python}",
        )  # fmt: skip
    if "No module named" in words and "hpctrain" in words:
        return broken_at(
            HPCTRAIN, f"{python} there has no hpctrain of this kind: {contact.last_words}",
            alias, target,
            f"{{ssh}} {python} -m pip install hpctrain=={hpctrain.__version__}",
        )  # fmt: skip
    known = parse_ssh_words(words, alias, target)
    if known is not None and known.step == SHELL:
        return known
    found = f"it logged in, and then exit code {contact.returncode}: {contact.last_words}"
    return broken_at(ANSWER, found, alias, target, f"{{ssh}} {python} -m hpctrain.probe")


def _knock(target: SshTarget, alias: str) -> Broken | None:
    """Find the host's addresses and open its port; None where that goes well."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        return broken_at(NAME, f"{target.host} has no address: {reason}", alias, target)
    problems: list[OSError] = []
    for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.settimeout(CONNECT_TIMEOUT_S)
                sock.connect(address)
                return None
        except OSError as problem:
            problems.append(problem)
    return judge_refusal(problems[-1], alias, target) if problems else None


def judge_refusal(problem: OSError, alias: str, target: SshTarget) -> Broken:
    """Return what the kernel's answer to a connection means. Pure."""
    if problem.errno in _NO_ROUTE:
        reason = os.strerror(problem.errno or 0)
        return broken_at(ROUTE, f"no route to {target.host}: {reason}", alias, target)
    if problem.errno == errno.ECONNREFUSED:
        known = parse_ssh_words("Connection refused", alias, target)
        assert known is not None
        return known
    if isinstance(problem, TimeoutError):
        found = (
            f"no answer from {target.host} port {target.port} within {CONNECT_TIMEOUT_S:g} s: the "
            "host is off, or a firewall drops it"
        )
        return broken_at(PORT, found, alias, target)
    return broken_at(PORT, f"{target.host} port {target.port}: {problem}", alias, target)


def _try_login(
    alias: str, target: SshTarget, ssh_options: tuple[str, ...], contact: Contact, here: Executor
) -> Broken:
    """Log in and do nothing: ssh is made to speak, where its configuration silences it."""
    there = SshExecutor(alias, ("-o", "LogLevel=INFO", *ssh_options), here)
    done = there.run(Command(("true",)), timeout_s=LOGIN_TIMEOUT_S)
    return judge_login(done, contact, alias, target)


def judge_login(done: Completed, contact: Contact, alias: str, target: SshTarget) -> Broken:
    """Return what a login that does nothing shows. Pure.

    Args:
        done: how it ended.
        contact: how the question before it went.
    """
    known = parse_ssh_words(done.stderr, alias, target)
    if done.returncode == SSH_FAILED and known is not None:
        return known
    if done.returncode == TIMED_OUT:
        found = f"the login does not finish within {LOGIN_TIMEOUT_S:g} s: {done.last_words}"
        return broken_at(
            SHELL, found, alias, target, "what does its ~/.bashrc wait for? {ssh} true"
        )
    if done.ok:
        found = f"a login works, but the question had no answer: {contact.last_words}"
        return broken_at(ANSWER, found, alias, target, "is that host overloaded? {ssh} uptime")
    if done.returncode == SSH_FAILED:
        return broken_at(LOGIN, f"ssh: {done.last_words}", alias, target, "{ssh} -v true")
    found = f"'true' ended with exit code {done.returncode}: {done.last_words}"
    return broken_at(SHELL, found, alias, target, "{ssh} true")
