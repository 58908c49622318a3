#!/usr/bin/env python3
"""Turn this node off once it has been idle for the hours given.

usage: hpctrain-idle-shutdown HOURS

A systemd timer calls it every few minutes. Idle means: no GPU works, the load of the last 15
minutes is low and nobody has typed in a terminal for a while. A run that hangs counts as idle
once its processes sleep. `sudo systemctl stop hpctrain-idle.timer` keeps a node on.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

MARK = Path("/run/hpctrain-idle-since")  # gone after a boot, as it should be
SCHEDULED = Path("/run/systemd/shutdown/scheduled")
BUSY_LOAD = 0.5  # runnable processes, averaged over 15 minutes: a rank that waits spins
BUSY_GPU_PERCENT = 5
TYPED_S = 1800.0
WARNING_MINUTES = 10


def is_busy(load: float, gpu_percents: list[int], typed_ago_s: float) -> bool:
    """Return whether anybody or anything uses the node."""
    working = any(percent > BUSY_GPU_PERCENT for percent in gpu_percents)
    return working or load > BUSY_LOAD or typed_ago_s < TYPED_S


def decide(busy: bool, now_s: float, idle_since_s: float | None, hours: float) -> str:
    """Return what to do: "busy", "wait" or "off"."""
    if busy:
        return "busy"
    idle_s = now_s - (now_s if idle_since_s is None else idle_since_s)
    return "off" if idle_s >= hours * 3600 else "wait"


def read_gpu_percents() -> list[int]:
    """Return how busy each GPU is; nothing where there is none to ask."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(word) for word in done.stdout.split() if word.isdigit()]


def read_typed_ago_s(now_s: float, terminals: Path = Path("/dev/pts")) -> float:
    """Return for how long nobody has typed or read anything in any terminal."""
    times = [path.stat().st_atime for path in terminals.glob("[0-9]*")]
    return now_s - max(times, default=0.0)


def main(hours: float) -> None:
    """Look once, remember since when the node idles, and turn it off when it is time."""
    now_s = time.time()
    busy = is_busy(os.getloadavg()[2], read_gpu_percents(), read_typed_ago_s(now_s))
    since_s = float(MARK.read_text()) if MARK.exists() else None
    action = decide(busy, now_s, since_s, hours)
    if action == "busy":
        MARK.unlink(missing_ok=True)
        subprocess.run(["shutdown", "-c"], capture_output=True, check=False)
    elif since_s is None:
        MARK.write_text(str(now_s))
    elif action == "off" and not SCHEDULED.exists():  # another call would only put it off
        message = f"idle for {hours:g} hours: this node turns itself off (hpctrain)"
        subprocess.run(["shutdown", "-h", f"+{WARNING_MINUTES}", message], check=False)


if __name__ == "__main__":
    main(float(sys.argv[1]))
