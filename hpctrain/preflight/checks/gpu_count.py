"""Is there a GPU for every rank, and none for two?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.gpu_states import GPUS, HostGpus, host_gpus, wants_gpus
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "gpu-count"


def judge_gpu_count(fleet: Fleet) -> Iterator[Verdict]:
    """Compare each host's ranks with the GPUs that they see, and find GPUs that are seen twice."""
    answers = fleet.answers.get(GPUS.name, {})
    known = {host: host_gpus(each.value) for host, each in answers.items() if not each.error}
    # Between attempts it is known that there were some when the run began.
    anywhere = fleet.facts.get(CODE, False) or any(gpus.gpus for gpus in known.values())
    for host, answer in answers.items():
        task = fleet.tasks[host]
        if wants_gpus(task) is False:
            found = "ranks compute on the CPU (train.device=cpu)"
            yield Verdict(CODE, SKIP, found, hosts=(host,))
        elif answer.error:
            yield not_asked(CODE, host, answer.error)
        elif not anywhere and wants_gpus(task) is None:
            yield replace(_judge_unused(known[host]), hosts=(host,))
        else:
            yield replace(_judge_host(task, known[host]), hosts=(host,))
    yield from _same_machine(known)


def _judge_unused(known: HostGpus) -> Verdict:
    """Return the verdict on a host where, as on all others, no GPU can be used, and none must."""
    if not known.on_bus:
        return Verdict(CODE, SKIP, "no NVIDIA GPU: ranks compute on the CPU")
    found, fix = _explain_absence(known)
    return Verdict(CODE, WARN, f"{found}: ranks compute on the CPU", fix)


def _explain_absence(known: HostGpus) -> tuple[str, str]:
    """Return why GPUs that the PCI bus has cannot be used, and what may help."""
    if not known.has_driver:
        found = f"{known.on_bus} GPUs on the PCI bus, and no NVIDIA driver loaded, or no nvidia-smi"
        return found, "modprobe nvidia, or install the driver; a container: --gpus, or --nv"
    # Slurm's device cgroup and a container's --gpus leave some out, as they should.
    found = (
        f"the PCI bus has {known.on_bus} GPUs, and nvidia-smi {len(known.gpus)}: this job or "
        "container may not see the others"
    )
    return found, "ask for more (--gres, --gpus); outside of both: nvidia-smi; dmesg | grep NVRM"


def _judge_host(task: NodeTask, known: HostGpus) -> Verdict:
    devices = known.devices
    masked = "" if known.visible is None else f" (CUDA_VISIBLE_DEVICES={known.visible})"
    twice = [uuid for uuid, count in Counter(uuid for _, uuid in devices).items() if count > 1]
    if twice:
        found = f"CUDA_VISIBLE_DEVICES={known.visible} names {twice[0]} twice"
        return Verdict(CODE, FAIL, found, "unset CUDA_VISIBLE_DEVICES, or name each GPU once")
    hidden = known.on_bus > len(known.gpus)
    if len(devices) < task.ranks:
        found = f"{len(devices)} GPUs visible for {task.ranks} ranks{masked}"
        # A program of one's own may well compute on the CPU, or share GPUs.
        status = FAIL if task.config else WARN
        fix = f"slots={len(devices)} in the hostfile" if devices else "--exclude-file, or check it"
        if hidden:
            why, help_ = _explain_absence(known)
            found, fix = f"{found}; {why}", f"{fix}; {help_}"
        return Verdict(CODE, status, found, fix, "one each")
    shared = [gpu for gpu, count in Counter(gpu for gpu, _ in devices[: task.ranks]).items()
              if count > 1]  # fmt: skip
    if shared:
        number = known.number(shared[0])
        found = f"two ranks would get slices (MIG) of GPU {number}; NCCL refuses that"
        return Verdict(CODE, FAIL, found, f"nvidia-smi -i {number} -mig 0, or a rank a GPU")
    names = ", ".join(
        f"{count} {name}" for name, count in Counter(gpu.name for gpu in known.used).items()
    )
    found = f"{names}{masked} for {task.ranks} ranks"
    if hidden:
        why, fix = _explain_absence(known)
        return Verdict(CODE, WARN, f"{found}; {why}", fix)
    return Verdict(CODE, PASS, found)


def _same_machine(known: dict[str, HostGpus]) -> Iterator[Verdict]:
    """Find hosts that are one machine by two names: its GPUs have the same UUIDs."""
    owners: dict[str, str] = {}
    told = set()
    for host, gpus in known.items():
        for gpu in gpus.gpus:
            other = owners.setdefault(gpu.uuid, host)
            if other != host and (other, host) not in told:
                told.add((other, host))
                found = f"{other} and {host} are one machine: both have {gpu.uuid}"
                fix = f"leave {host} out of the hostfile"
                yield Verdict(CODE, FAIL, found, fix, "", (host,))


GPU_COUNT = Check(CODE, judge_gpu_count, (GPUS,))
