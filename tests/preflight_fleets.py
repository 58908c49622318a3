"""Fleets as values: what hosts answered, for tests of checks that judge them."""

import os
from dataclasses import asdict

import captured_gpus as captured

from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.nvidia_smi import parse_nvidia_smi
from hpctrain.preflight.task import NodeTask


def fleet(
    probe,
    values,
    *,
    ranks=2,
    config=None,
    facts=None,
    subnet=None,
    more=None,
    environ=None,
    **others,
):
    """Return a fleet whose hosts answered one probe.

    Args:
        values: host → what its probe returned, or an Exception that it failed with.
        others: further probes, each as `values`; "_" stands for "-" in their names.
    """
    hosts = list(values)
    tasks = {
        host: NodeTask(
            host=host, ranks=ranks, np=ranks * len(hosts), hosts={name: () for name in hosts},
            config=config or {}, subnet=subnet, more=more or {}, environ=environ or {},
        )
        for host in hosts
    }  # fmt: skip
    probes = {probe: values, **{name.replace("_", "-"): each for name, each in others.items()}}
    answers = {
        name: {
            host: Answer(error=f"{value}") if isinstance(value, Exception) else Answer(value)
            for host, value in each.items()
        }
        for name, each in probes.items()
    }
    return Fleet(tasks=tasks, answers=answers, facts=facts or {})


def gpu_answer(query=captured.A100_IDLE, listed="", *, visible=None, on_bus=None):
    """Return what the probe of GPUs answers on a host whose nvidia-smi prints this."""
    gpus = [asdict(gpu) for gpu in parse_nvidia_smi(query, listed)]
    count = len(gpus) if on_bus is None else on_bus
    return {"on_bus": count, "has_driver": True, "visible": visible, "gpus": gpus}


NO_GPU = {"on_bus": 0, "has_driver": False, "visible": None, "gpus": []}


def statuses(verdicts):
    """Return (status, hosts) of each verdict."""
    return [(verdict.status, verdict.hosts) for verdict in verdicts]


def only(verdicts):
    """Return the one verdict that there is."""
    (verdict,) = list(verdicts)
    return verdict


def stand_in(folder, monkeypatch, name, text, code=0):
    """Put a program of this name first on PATH that prints a captured text."""
    (folder / f"{name}.txt").write_text(text)
    program = folder / name
    program.write_text(f'#!/bin/sh\ncat "{folder}/{name}.txt"\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
