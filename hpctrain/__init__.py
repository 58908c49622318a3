"""hpctrain: MPI- and Horovod-centric distributed training, from a laptop to a cluster.

Importing the package costs nothing: it pulls in no torch, no Horovod and no Click.
A training script that is not hpctrain's own may call ``hpctrain.report_step(step)``, so that
the monitor, the progress bar and the hang detector know how far it is.
"""

__all__ = ["__version__", "report_step"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "report_step":
        from hpctrain.events import report_step

        return report_step
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
