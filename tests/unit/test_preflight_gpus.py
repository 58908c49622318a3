"""Preflight's checks of GPUs, on what real machines printed (tests/captured_gpus.py)."""

import json
from dataclasses import replace

import captured_gpus as captured
import pytest
from preflight_fleets import NO_GPU, fleet, gpu_answer, only, stand_in, statuses

from hpctrain.config import parse_config
from hpctrain.errors import ProbeError
from hpctrain.preflight.checks import gpu_states, xid
from hpctrain.preflight.checks.gpu_count import judge_gpu_count
from hpctrain.preflight.checks.gpu_health import GPU_HEALTH
from hpctrain.preflight.checks.gpu_memory import GPU_MEMORY, free_bytes
from hpctrain.preflight.checks.gpu_processes import GPU_PROCESSES
from hpctrain.preflight.checks.gpu_states import GPUS, count_on_bus, host_gpus
from hpctrain.preflight.checks.xid import LOG, judge_xids, parse_xids
from hpctrain.preflight.need import plan_need
from hpctrain.preflight.nvidia_smi import GpuProcess, parse_nvidia_smi, resolve_visible
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN

GIB = 2**30
MIB = 2**20


@pytest.fixture
def run_need():
    return plan_need(parse_config(""), 2)


# -- nvidia-smi ----------------------------------------------------------------------------------


def test_an_idle_healthy_machine():
    gpus = parse_nvidia_smi(captured.A100_IDLE)
    assert [gpu.bus_id for gpu in gpus] == ["00000001:00:00.0", "00000002:00:00.0"]
    assert [gpu.name for gpu in gpus] == ["A100-SXM4-40GB"] * 2
    assert gpus[0].uuid == "GPU-b01e9f90-c60c-4ad1-2052-154833662357"
    assert (gpus[0].total_bytes, gpus[0].free_bytes) == (40536 * MIB, 40536 * MIB)
    assert not any(gpu.troubles or gpu.slowed or gpu.processes or gpu.uncorrected for gpu in gpus)


def test_processes_and_memory_in_use():
    busy, other = parse_nvidia_smi(captured.RTX_4090_BUSY)
    expected = GpuProcess(pid=58130, kind="C", name="/usr/bin/python", used_bytes=20322 * MIB)
    assert busy.processes == (expected,)
    assert (busy.used_bytes, busy.free_bytes) == (20328 * MIB, 3888 * MIB)
    assert other.free_bytes == 2860 * MIB
    assert busy.uncorrected == 0  # N/A: no ECC


def test_errors_of_the_past_that_were_repaired_are_no_trouble():
    (gpu,) = parse_nvidia_smi(captured.GH200_REPAIRED)
    assert (gpu.uncorrected, gpu.troubles) == (0, ())


def test_gpus_before_turing_count_memory_errors_by_bits():
    (gpu,) = parse_nvidia_smi(captured.V100_IDLE)
    assert (gpu.uncorrected, gpu.troubles) == (0, ())  # those of its past were corrected
    # Of one with such errors no capture was found: a number of the healthy one is changed.
    volatile, aggregate, rest = captured.V100_IDLE.partition("        Aggregate")
    before, double, after = volatile.partition("Double Bit")
    after = after.replace("Total                     : 0", "Total                     : 4")
    (gpu,) = parse_nvidia_smi(f"{before}{double}{after}{aggregate}{rest}")
    assert gpu.uncorrected == 4


def test_memory_errors_that_are_not_told_are_not_none():
    query = captured.V100_IDLE.replace("Double Bit", "In words of another driver")
    (gpu,) = parse_nvidia_smi(query)
    assert gpu.uncorrected is None
    (gpu,) = parse_nvidia_smi(query.replace("Enabled", "Disabled"))
    assert gpu.uncorrected == 0
    verdict = only(health(query))
    assert verdict.status == WARN
    assert "no count of uncorrected" in verdict.found


def test_hardware_that_lowers_the_clocks():
    (gpu,) = parse_nvidia_smi(captured.A10_POWER_BRAKE)
    assert gpu.slowed == ("HW Power Brake Slowdown",)
    older = "".join(f"    {line}" for line in captured.V100_POWER_BRAKE_REASONS.splitlines(True))
    (gpu,) = parse_nvidia_smi(f"GPU 00000000:1A:00.0\n{older}")
    assert gpu.slowed == ("HW Power Brake Slowdown",)


def test_slices_of_a_gpu():
    (gpu,) = parse_nvidia_smi(captured.H200_MIG)
    assert gpu.mig
    assert gpu.slices_free_bytes == (16376 * MIB, 16376 * MIB)
    assert gpu.free_bytes == 143103 * MIB
    assert gpu.troubles == ()


def test_what_says_nothing_has_no_gpus():
    assert parse_nvidia_smi("") == parse_nvidia_smi("No devices were found\n") == ()


A100_SLICES = [
    replace(gpu, uuid=uuid, slices=slices)
    for gpu, (uuid, slices) in zip(
        parse_nvidia_smi(captured.A100_IDLE),
        {
            "GPU-9c73eb7b-8d6d-6c0e-dc13-97873e2ede40": (
                "MIG-a686709d-6dc2-542a-8851-0d2508448c10",
                "MIG-53864714-0a66-5df2-9007-9268e30d9a72",
            ),
            "GPU-c92e2d5d-4a69-f1cd-4df0-305f8606705a": (
                "MIG-d5a46a2e-1d77-575d-99e3-1f96c8555a2e",
                "MIG-b8479d6e-d08f-5a92-9a24-0946db72b2a0",
            ),
        }.items(),
        strict=True,
    )
]


def test_slices_are_listed_under_their_gpu():
    query = captured.A100_IDLE
    for old, new in zip(
        ("b01e9f90-c60c-4ad1-2052-154833662357", "fccd4a78-556b-7b41-320b-f2a10438c176"),
        ("9c73eb7b-8d6d-6c0e-dc13-97873e2ede40", "c92e2d5d-4a69-f1cd-4df0-305f8606705a"),
        strict=True,
    ):
        query = query.replace(old, new)
    assert list(parse_nvidia_smi(query, captured.A100_MIG_LIST)) == A100_SLICES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [(0, "b01e"), (1, "fccd")]),
        ("1", [(1, "fccd")]),
        ("1,0", [(1, "fccd"), (0, "b01e")]),
        ("GPU-fccd4a78", [(1, "fccd")]),
        ("0,-1,1", [(0, "b01e")]),
        ("0,7", [(0, "b01e")]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_what_ranks_see(text, expected):
    gpus = parse_nvidia_smi(captured.A100_IDLE)
    found = resolve_visible(text, gpus)
    assert [(gpus.index(gpu), uuid[4:8]) for gpu, uuid in found] == expected


def test_a_slice_is_seen_by_its_uuid():
    ((gpu, uuid),) = resolve_visible("MIG-b8479d6e", A100_SLICES)
    assert (A100_SLICES.index(gpu), uuid) == (1, "MIG-b8479d6e-d08f-5a92-9a24-0946db72b2a0")


# -- how many ------------------------------------------------------------------------------------


def test_a_gpu_for_every_rank():
    verdict = only(judge_gpu_count(fleet("gpu-states", {"n1": gpu_answer()})))
    assert (verdict.status, verdict.hosts) == (PASS, ("n1",))
    assert verdict.found == "2 A100-SXM4-40GB for 2 ranks"


HIDDEN = gpu_answer(on_bus=8)
NO_DRIVER = {**NO_GPU, "on_bus": 8}
NONE_LET_IN = {**NO_DRIVER, "has_driver": True}


@pytest.mark.parametrize(
    ("answer", "ranks", "found", "fix"),
    [
        (gpu_answer(), 4, "2 GPUs visible for 4 ranks", "slots=2"),
        (gpu_answer(visible="1"), 2, "(CUDA_VISIBLE_DEVICES=1)", "slots=1"),
        (gpu_answer(visible="1,1"), 2, "twice", "name each GPU once"),
        (gpu_answer(visible="0,GPU-b01e"), 2, "names GPU-b01e9f90", "name each GPU once"),
        (HIDDEN, 4, "the PCI bus has 8 GPUs, and nvidia-smi 2", "dmesg"),
    ],
)
def test_too_few_gpus(answer, ranks, found, fix):
    config = {"train": {"device": "auto"}}
    verdict = only(judge_gpu_count(fleet("gpu-states", {"n1": answer}, ranks=ranks, config=config)))
    assert verdict.status == FAIL
    assert found in verdict.found
    assert fix in verdict.fix


def test_a_job_or_container_that_may_use_some_of_the_gpus_is_enough():
    verdict = only(judge_gpu_count(fleet("gpu-states", {"n1": HIDDEN}, ranks=2)))
    assert verdict.status == WARN
    assert verdict.found.startswith("2 A100-SXM4-40GB for 2 ranks; the PCI bus has 8 GPUs")
    assert "may not see the others" in verdict.found


@pytest.mark.parametrize(
    ("answer", "found"),
    [(NO_DRIVER, "no NVIDIA driver loaded"), (NONE_LET_IN, "and nvidia-smi 0: this job")],
)
def test_gpus_that_cannot_be_used_fail_a_training_that_wants_them(answer, found):
    """A laptop under nouveau trains on its CPU; beside hosts with GPUs it would not go together."""

    def judged(device, **others):
        config = {"train": {"device": device}}
        values = {"n1": answer, **others}
        return next(judge_gpu_count(fleet("gpu-states", values, config=config)))

    for verdict, status in (
        (judged("auto"), WARN), (judged("cuda"), FAIL), (judged("auto", n2=gpu_answer()), FAIL),
    ):  # fmt: skip
        assert (verdict.status, verdict.hosts) == (status, ("n1",))
        assert found in verdict.found
    assert "compute on the CPU" in judged("auto").found


def test_a_program_of_ones_own_may_have_more_ranks_than_gpus():
    verdict = only(judge_gpu_count(fleet("gpu-states", {"n1": gpu_answer()}, ranks=32)))
    assert verdict.status == WARN
    assert "2 GPUs visible for 32 ranks" in verdict.found


def test_two_ranks_on_slices_of_one_gpu():
    answer = gpu_answer()
    answer["gpus"] = [
        {**gpu, "uuid": part.uuid, "slices": list(part.slices)}
        for gpu, part in zip(answer["gpus"], A100_SLICES, strict=True)
    ]
    answer["visible"] = "MIG-a686709d,MIG-53864714"
    verdict = only(judge_gpu_count(fleet("gpu-states", {"n1": answer})))
    assert verdict.status == FAIL
    assert "slices (MIG) of GPU 0; NCCL refuses that" in verdict.found
    one_each = {**answer, "visible": "MIG-a686709d,MIG-d5a46a2e"}
    assert only(judge_gpu_count(fleet("gpu-states", {"n1": one_each}))).status == PASS


def test_one_machine_by_two_names_is_found_by_its_uuids():
    verdicts = list(judge_gpu_count(fleet("gpu-states", {"n1": gpu_answer(), "n2": gpu_answer()})))
    assert statuses(verdicts) == [(PASS, ("n1",)), (PASS, ("n2",)), (FAIL, ("n2",))]
    assert "n1 and n2 are one machine" in verdicts[2].found


def test_a_host_without_gpus_among_others():
    config = {"train": {"device": "auto"}}
    values = {"n1": gpu_answer(), "n2": NO_GPU}
    verdicts = list(judge_gpu_count(fleet("gpu-states", values, config=config)))
    assert statuses(verdicts) == [(PASS, ("n1",)), (FAIL, ("n2",))]
    assert "0 GPUs visible for 2 ranks" in verdicts[1].found


@pytest.mark.parametrize(("device", "status"), [("auto", SKIP), ("cpu", SKIP), ("cuda", FAIL)])
def test_no_gpu_at_all(device, status):
    values = {"n1": NO_GPU, "n2": NO_GPU}
    config = {"train": {"device": device}}
    verdicts = list(judge_gpu_count(fleet("gpu-states", values, config=config)))
    assert statuses(verdicts) == [(status, ("n1",)), (status, ("n2",))]


def test_what_cannot_be_asked_is_not_passed():
    values = {"n1": RuntimeError("nvidia-smi -q: exit code 9")}
    for judge in (judge_gpu_count, GPU_HEALTH.judge, GPU_PROCESSES.judge):
        verdict = only(judge(fleet("gpu-states", values)))
        assert verdict.status == FAIL
        assert "exit code 9" in verdict.found


def test_gpus_on_the_bus_are_counted(tmp_path):
    devices = {
        "0": ("0x10de", "0x030200"),
        "1": ("0x10de", "0x030000"),  # 3D and display
        "2": ("0x10de", "0x040300"),
        "3": ("0x8086", "0x030000"),
    }  # sound; another maker
    for name, (vendor, kind) in devices.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert count_on_bus(tmp_path) == 2
    assert count_on_bus(tmp_path / "none") == 0


# -- health --------------------------------------------------------------------------------------


def health(query):
    return list(GPU_HEALTH.judge(fleet("gpu-states", {"n1": gpu_answer(query)})))


def test_healthy_gpus_pass():
    assert statuses(health(captured.A100_IDLE)) == [(PASS, ("n1",))]
    assert statuses(health(captured.GH200_REPAIRED)) == [(PASS, ("n1",))]


def test_a_slowed_gpu_fails():
    verdict = only(health(captured.A10_POWER_BRAKE))
    assert verdict.status == FAIL
    assert "GPU 0 (00000000:06:00.0): clocks lowered: HW Power Brake Slowdown" in verdict.found
    assert "nvidia-smi -q -i 0" in verdict.fix


# The verdicts themselves, on values; no capture of a GPU with these was found.
@pytest.mark.parametrize(
    ("changes", "status", "found"),
    [
        ({"uncorrected": 2}, FAIL, "2 uncorrected memory errors"),
        ({"troubles": ["Remapped Rows, Pending: Yes"]}, WARN, "Pending: Yes"),
        ({"troubles": ["Remapped Rows, Remapping Failure Occurred: Yes"]}, FAIL, "Failure"),
        ({"troubles": ["GPU Recovery Action: Reset"]}, FAIL, "Recovery Action: Reset"),
        ({"slowed": ["SW Thermal Slowdown"]}, WARN, "SW Thermal Slowdown"),
    ],
)
def test_what_is_wrong_with_a_gpu(changes, status, found):
    answer = gpu_answer()
    answer["gpus"][1].update(changes)
    verdict = only(GPU_HEALTH.judge(fleet("gpu-states", {"n1": answer})))
    assert verdict.status == status
    assert found in verdict.found
    assert verdict.found.startswith("GPU 1 ")


def test_gpus_that_no_rank_uses_count_for_nothing():
    answer = gpu_answer(visible="0")
    answer["gpus"][1].update(uncorrected=2, troubles=["GPU Recovery Action: Reset"])
    assert statuses(GPU_HEALTH.judge(fleet("gpu-states", {"n1": answer}))) == [(PASS, ("n1",))]
    config = {"train": {"device": "cpu"}}
    assert list(GPU_HEALTH.judge(fleet("gpu-states", {"n1": answer}, config=config))) == []


# -- the driver's log ----------------------------------------------------------------------------

# The journal's own way to begin a line, before a captured line of dmesg.
JOURNAL = captured.JOURNAL_STAMP + captured.DMESG_XID_119.splitlines()[2].partition("] ")[2] + "\n"


def xids(log, up_s=0.0):
    value = {"xids": [
        {"pci": x.pci, "code": x.code, "text": x.text, "count": x.count, "time_s": x.time_s}
        for x in parse_xids(log)
    ], "up_s": up_s}  # fmt: skip
    return list(judge_xids(fleet("kernel-log", {"n1": value})))


def test_errors_are_counted_by_gpu_and_code():
    (xid,) = parse_xids(captured.DMESG_XID_119)
    assert (xid.pci, xid.code, xid.count, xid.time_s) == ("0000:9b:00", 119, 3, None)
    assert "waiting for RPC response from GPU4 GSP" in xid.text
    found = parse_xids(captured.DMESG_XID_MIXED)
    assert [(x.pci, x.code, x.count) for x in found] == [
        ("0000:00:05", 43, 2), ("0000:00:07", 31, 1), ("0000:00:08", 94, 1),
    ]  # fmt: skip


def test_a_gpu_off_the_bus_with_and_without_a_number():
    (xid,) = parse_xids(captured.SYSLOG_XID_79)
    assert (xid.pci, xid.code, xid.time_s) == ("0000:01:00", 79, 8659.726062)
    (xid,) = parse_xids(captured.DMESG_OFF_THE_BUS)
    assert (xid.pci, xid.code, xid.time_s) == ("0000:b3:00.0", 79, 1843.308145)


def test_when_an_error_was_is_known_from_both_logs():
    (xid,) = parse_xids(captured.DMESG_CALLER)
    assert (xid.code, xid.time_s) == (31, 130.456250)
    assert [(x.code, x.time_s) for x in parse_xids(JOURNAL)] == [(119, 5.852476)]
    (xid,) = parse_xids(captured.JOURNAL_STAMP + captured.DMESG_OFF_THE_BUS.partition("] ")[2])
    assert (xid.code, xid.time_s) == (79, 5.852476)
    # A line of the journal that is older than a day fails no host.
    verdict = only(xids(JOURNAL, up_s=100_000.0))
    assert verdict.status == WARN
    assert only(xids(JOURNAL, up_s=50_000.0)).status == FAIL


def test_errors_of_the_hardware_fail():
    verdict = only(xids(captured.DMESG_XID_119))
    assert verdict.status == FAIL
    assert "Xid 119 of GPU 0000:9b:00 (GSP does not answer), 3 times" in verdict.found


def test_a_contained_error_warns_and_those_of_programs_count_for_nothing():
    verdict = only(xids(captured.DMESG_XID_MIXED))
    assert verdict.status == WARN
    assert "Xid 94" in verdict.found
    of_programs = "\n".join(captured.DMESG_XID_MIXED.splitlines()[:-1])
    verdict = only(xids(of_programs))
    assert (verdict.status, verdict.found) == (
        PASS,
        "none of the hardware; of programs alone: 43, 31",
    )


@pytest.mark.parametrize(("up_s", "status"), [(10_000.0, FAIL), (8659.0 + 86401, WARN)])
def test_what_is_older_than_a_day_warns(up_s, status):
    assert statuses(xids(captured.SYSLOG_XID_79, up_s)) == [(status, ("n1",))]


def test_a_log_that_may_not_be_read_is_said():
    value = {"xids": None, "up_s": 0.0}
    verdict = only(judge_xids(fleet("kernel-log", {"n1": value})))
    assert verdict.status == SKIP
    assert "dmesg_restrict" in verdict.fix
    assert list(judge_xids(fleet("kernel-log", {"n1": None}))) == []  # no driver


# -- who else, and how much memory ---------------------------------------------------------------


def test_a_foreign_process_is_named():
    answer = gpu_answer(captured.RTX_4090_BUSY)
    verdicts = list(GPU_PROCESSES.judge(fleet("gpu-states", {"n1": answer})))
    assert statuses(verdicts) == [(WARN, ("n1",)), (WARN, ("n1",))]
    assert "GPU 0: /usr/bin/python (pid 58130, 19.8 GiB) computes there" in verdicts[0].found
    # The capture is cut before the second GPU's process.
    assert "GPU 1: 20.9 GiB in use by processes that cannot be seen" in verdicts[1].found


def test_nobody_else():
    assert statuses(GPU_PROCESSES.judge(fleet("gpu-states", {"n1": gpu_answer()}))) == [
        (PASS, ("n1",))
    ]


@pytest.mark.parametrize("mode", ["Exclusive_Process", "Prohibited"])
def test_compute_modes_that_let_no_rank_in(mode):
    answer = gpu_answer(captured.RTX_4090_BUSY)
    answer["gpus"][0]["compute_mode"] = mode
    verdicts = list(GPU_PROCESSES.judge(fleet("gpu-states", {"n1": answer})))
    assert any(v.status == FAIL and mode in v.found for v in verdicts)


def memory(answer, need):
    return list(GPU_MEMORY.judge(fleet("gpu-states", {"n1": answer}, facts={"need": need})))


def test_free_memory_against_the_estimate(run_need):
    need = replace(run_need, needed_bytes=30.0 * GIB, at_most_bytes=33.0 * GIB)
    assert statuses(memory(gpu_answer(), need)) == [(PASS, ("n1",))]
    tight = replace(need, needed_bytes=39.0 * GIB, at_most_bytes=42.0 * GIB)
    assert "tight" in only(memory(gpu_answer(), tight)).found
    verdict = only(memory(gpu_answer(captured.RTX_4090_BUSY), need))
    assert verdict.status == FAIL
    assert verdict.found == "GPU 1: 2.8 GiB free, the least of 2"
    assert verdict.expected == "30.0 GiB, by the estimate"
    assert "grad_accum_steps" in verdict.fix


def test_without_an_estimate_memory_is_not_judged():
    assert memory(gpu_answer(), None) == []
    assert memory(gpu_answer(), "model.factory: …") == []


def test_the_memory_of_a_slice_is_its_own():
    (gpu,) = parse_nvidia_smi(captured.H200_MIG)
    cut = replace(gpu, slices=("MIG-a", "MIG-b"), slices_free_bytes=(1, 2))
    assert [free_bytes(cut, uuid) for uuid in ("MIG-a", "MIG-b", gpu.uuid)] == [
        1, 2, 143103 * MIB,
    ]  # fmt: skip


def test_answers_travel_as_json():
    answer = json.loads(json.dumps(gpu_answer(captured.RTX_4090_BUSY)))
    assert host_gpus(answer).gpus == parse_nvidia_smi(captured.RTX_4090_BUSY)


# -- the probes, with a driver whose programs print captured text ----------------------------------


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Let there be a driver, and return how to let one of its programs print something."""
    for module in (gpu_states, xid):
        monkeypatch.setattr(module, "DRIVER", tmp_path)
    return lambda *program: stand_in(tmp_path, monkeypatch, *program)


TASK = NodeTask(host="n1", ranks=2)


def test_gpus_are_asked_by_nvidia_smi(driver, monkeypatch):
    driver("nvidia-smi", captured.A100_IDLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    known = host_gpus(json.loads(json.dumps(GPUS.look(TASK))))
    assert [known.number(gpu) for gpu in known.used] == [1]
    assert known.gpus == parse_nvidia_smi(captured.A100_IDLE)


def test_an_nvidia_smi_that_fails_is_no_answer(driver):
    driver("nvidia-smi", "Unable to determine the device handle for GPU\n", 9)
    with pytest.raises(ProbeError, match="exit code 9: Unable to determine"):
        GPUS.look(TASK)


def test_the_log_is_read_from_dmesg_else_from_the_journal(driver):
    driver("dmesg", captured.DMESG_OFF_THE_BUS)
    driver("journalctl", JOURNAL)
    assert [x["code"] for x in LOG.look(TASK)["xids"]] == [79]
    driver("dmesg", "", 1)
    assert [(x["code"], x["time_s"]) for x in LOG.look(TASK)["xids"]] == [(119, 5.852476)]
    driver("journalctl", "", 1)
    assert LOG.look(TASK)["xids"] is None


def test_a_journal_that_shows_no_entry_of_the_kernel_is_no_answer(driver):
    driver("dmesg", "", 1)  # kernel.dmesg_restrict
    driver("journalctl", captured.JOURNAL_NOTHING)
    assert LOG.look(TASK)["xids"] is None
    driver("journalctl", captured.JOURNAL_STAMP + "a line of another kind\n")
    assert LOG.look(TASK)["xids"] == []


def test_a_container_that_was_given_no_gpu(driver, monkeypatch):
    driver("nvidia-smi", "No devices were found\n", 6)
    assert (GPUS.look(TASK)["has_driver"], GPUS.look(TASK)["gpus"]) == (True, [])
    monkeypatch.setenv("PATH", "/nonexistent")
    assert (GPUS.look(TASK)["has_driver"], GPUS.look(TASK)["gpus"]) == (False, [])


def test_without_a_driver_nothing_is_started(tmp_path, monkeypatch):
    for module in (gpu_states, xid):
        monkeypatch.setattr(module, "DRIVER", tmp_path / "none")
    stand_in(tmp_path, monkeypatch, "nvidia-smi", captured.A100_IDLE)
    assert GPUS.look(TASK)["gpus"] == []
    assert LOG.look(TASK) is None
