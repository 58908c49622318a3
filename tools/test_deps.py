"""Install the system packages that some tests need, after saying which and for what."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

YES = {"1", "true", "yes"}


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package, the program that shows it is there, and the tests that need it."""

    name: str
    program: str
    needed_for: str


PACKAGES = (
    SystemPackage("openssh-client", "ssh", "launches over ssh"),
    SystemPackage("openssh-server", "sshd", "launches over ssh, multinode"),
    SystemPackage("rsync", "rsync", "code to clusters, results back"),
    SystemPackage("iproute2", "ip", "multinode: network namespaces"),
    SystemPackage("procps", "pgrep", "multinode: looking at nodes"),
)


def find_absent(packages: tuple[SystemPackage, ...], path: str) -> list[SystemPackage]:
    """Return the packages whose program is in no folder of `path`."""
    return [package for package in packages if not shutil.which(package.program, path=path)]


def main() -> int:
    """Install what is absent; return the exit code."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    absent = find_absent(PACKAGES, path)
    if not absent:
        print("test-deps: every system package that the tests need is here")
        return 0
    print("test-deps: the tests want these system packages:")
    for package in absent:
        print(f"    {package.name:<16} {package.needed_for}")
    names = [package.name for package in absent]
    line = f"apt-get install -y --no-install-recommends {' '.join(names)}"
    if not shutil.which("apt-get"):
        return refuse("there is no apt-get here", "install packages of the same purpose")
    if os.geteuid() != 0:
        return refuse("it needs root", f"sudo {line}")
    if not agreed():
        return refuse("nobody agreed", f"YES=1 make test-deps, or {line}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update", "-q"], line.split()):
        if code := subprocess.run(argv, env=environment, check=False).returncode:
            return refuse(f"`{' '.join(argv)}` ended with exit code {code}", "read its lines above")
    if absent := find_absent(PACKAGES, path):
        return refuse(f"{absent[0].program} is still missing", f"look at package {absent[0].name}")
    return 0


def agreed() -> bool:
    """Return whether to go on: by CI or YES, else by asking at a terminal."""
    if any(os.environ.get(name, "").lower() in YES for name in ("CI", "YES")):
        return True
    return sys.stdin.isatty() and input("Install them? [y/N] ").strip().lower() in {"y", "yes"}


def refuse(problem: str, advice: str) -> int:
    """Say why nothing was installed and what to do; return the exit code."""
    print(f"test-deps: nothing done: {problem}. {advice}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
