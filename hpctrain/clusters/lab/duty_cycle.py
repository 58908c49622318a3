"""Slow a node down by stopping its processes for a part of every tenth of a second.

::

    python -m hpctrain.clusters.lab.duty_cycle LAB NODE SHARE

A stand-in for a control group, where the machine offers none for CPU time: the work gets slower
by the share asked for, but in starts and stops. It ends with a signal, or with the lab.
"""

from __future__ import annotations

import signal
import sys
import time

from hpctrain.clusters.lab.cpu import continue_stopped, stop_node
from hpctrain.clusters.lab.find import find_inits

PERIOD_S = 0.1


def main() -> None:
    lab, node, share = sys.argv[1], sys.argv[2], float(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    while node in find_inits(lab):
        stopped: list[int] = []
        try:
            stop_node(lab, node, stopped)
            time.sleep(PERIOD_S * (1 - share))
        finally:  # also when it is ended: nothing stays stopped
            continue_stopped(stopped)
        time.sleep(PERIOD_S * share)


if __name__ == "__main__":
    main()
