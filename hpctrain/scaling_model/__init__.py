"""How long will a step take on machines that nobody has tried yet? Physics, no curve fits.

Links (`links.py`) between ranks in a shape (`topology.py`) carry buckets of gradients by an
algorithm (`collectives.py`) while backward still runs (`overlap.py`); the slowest of many ranks
is waited for (`jitter.py`). `predict.py` adds it up for a `StepModel` (`step.py`), which comes
from measurements (`calibrate.py`) or from a plan. Pure Python: no numpy, no processes, no files
but tables (of network cards in `instances.py`, of GPUs in `hpctrain.estimate`). Sharded training,
which hpctrain does not do, is in `sharded.py` for the sake of published curves.
"""
