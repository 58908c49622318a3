"""Where does torch come from on this machine?"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class Attempt:
    """Arguments for `pip install --no-deps`, and what they bring."""

    arguments: tuple[str, ...]
    what: str


def plan_torch(version: str, index_url: str, nvidia: bool) -> list[Attempt]:
    """Return what to try, in order.

    Args:
        version: of torch, without a local part.
        index_url: TORCH_INDEX_URL; empty where it is not given.
        nvidia: an NVIDIA device is here.
    """
    plain = f"torch=={version}"
    if index_url:
        return [
            Attempt(("--index-url", index_url, plain), f"from {index_url}, as TORCH_INDEX_URL says")
        ]
    if nvidia:
        return [Attempt((plain,), "CUDA build: an NVIDIA device is here; several GB")]
    cpu = f"{plain}+cpu"
    return [
        Attempt((cpu,), "CPU build: no NVIDIA device here"),
        Attempt(("--extra-index-url", CPU_INDEX, cpu), f"CPU build from {CPU_INDEX}"),
        Attempt((plain,), "CUDA build, several GB: no CPU build can be reached"),
    ]


def has_nvidia_device() -> bool:
    """Return whether the kernel shows an NVIDIA device; /dev/dxg is WSL's."""
    wsl = Path("/dev/dxg").exists() and Path("/usr/lib/wsl/lib/libcuda.so.1").exists()
    return wsl or any(Path("/dev").glob("nvidia[0-9]*"))


def probe_index(url: str) -> bool:
    """Return whether the index answers within seconds, where pip would try for minutes."""
    request = urllib.request.Request(f"{url}/torch/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S):
            return True
    except urllib.error.URLError as problem:
        # An answer that Python does not trust may be one that pip's own certificates cover.
        return isinstance(problem.reason, ssl.SSLError)
    except OSError:
        return False
