"""What the launcher is told: phases, rates, and unknown as null."""

import json
import math
import os

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.measure import PHASES, Reporter, StepClock  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def events(monkeypatch):
    """Return a function that reads the events emitted so far."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    monkeypatch.setenv("HPCTRAIN_EVENTS_FD", str(writer))
    yield lambda: [json.loads(line) for line in os.read(reader, 1 << 16).splitlines()]
    os.close(reader)
    os.close(writer)


def test_phases_are_averaged_over_the_steps_and_fit_into_them():
    clock = StepClock(CPU)
    for _ in range(3):
        clock.start_step()
        for phase in ("data", "forward", "backward", "forward", "backward", "optimizer"):
            clock.mark(phase)
    step_s, phases_s = clock.read()
    assert set(phases_s) == set(PHASES)
    assert phases_s["exposed_comm"] == 0
    assert 0 < sum(phases_s.values()) <= step_s
    clock.start_step()
    clock.mark("data")
    assert clock.read()[1]["forward"] == 0


def report(reporter, steps, log_every, step_time_s):
    for step in range(log_every, steps + 1, log_every):
        reporter.step(
            step, steps, loss=2.0, lr=0.1, grad_norm=1.0, new_steps=log_every,
            step_time_s=step_time_s(step), phases_s=dict.fromkeys(PHASES, 0.1),
        )  # fmt: skip
    reporter.finished(steps, 2.0, None)
    reporter.flush()


def test_speed_of_the_run_leaves_out_the_warm_up(events):
    reporter = Reporter(Communicator(), CPU, tokens_per_step=100)
    report(reporter, 40, 1, lambda step: 5.0 if step <= 10 else 0.5)
    assert events()[-1]["tokens_per_s"] == pytest.approx(200)


def test_speed_of_a_run_with_a_single_report_is_that_of_the_report(events):
    reporter = Reporter(Communicator(), CPU, tokens_per_step=100)
    report(reporter, 4, 4, lambda step: 0.5)
    step, rank_step, finished = events()
    assert finished["tokens_per_s"] == step["tokens_per_s"] == pytest.approx(200)
    assert (step["tokens"], step["mfu"], finished["val_loss"]) == (400, None, None)
    assert step["perplexity"] == pytest.approx(math.exp(2.0))
    assert {f"{phase}_s" for phase in PHASES} < set(rank_step)
    assert rank_step["device_peak_bytes"] is None
    assert rank_step["host_rss_bytes"] > 1 << 20


def test_a_launcher_that_listens_gets_events_and_no_lines(events, capsys):
    reporter = Reporter(Communicator(), CPU, tokens_per_step=100)
    report(reporter, 2, 1, lambda step: 0.5)
    reporter.evaluated(2, 1000.0)
    reporter.flush()
    assert events()[-1]["val_perplexity"] == "inf"
    assert capsys.readouterr().out == ""


def test_other_ranks_tell_only_their_own_times(events):
    class Second(Communicator):
        rank, size = 1, 2

    report(Reporter(Second(), CPU, tokens_per_step=100), 2, 1, lambda step: 0.5)
    assert [event["event"] for event in events()] == ["rank_step", "rank_step"]


def test_utilization_is_against_the_peak_of_all_devices(events, monkeypatch):
    class Two(Communicator):
        size = 2

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 << 30)
    reporter = Reporter(
        Two(), torch.device("cuda", 0), 1000, flops_per_token=989e6, precision="bf16"
    )
    reporter.started([], params=7)
    report(reporter, 1, 1, lambda step: 0.001)  # 1e6 tokens/s · 989e6 over 2 · 989e12
    started, step, rank_step, finished = events()
    assert (started["device_name"], started["peak_flops"]) == ("NVIDIA H200", 989e12)
    assert (started["device"], started["peak_disputed"]) == ("cuda:0", None)
    assert step["mfu"] == pytest.approx(0.5)
    assert finished["mfu"] == pytest.approx(0.5)
    assert rank_step["device_peak_bytes"] == 5 << 30


def test_utilization_is_null_where_the_peak_is_unknown(events, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX 9000")
    reporter = Reporter(Communicator(), torch.device("cuda", 0), 100, flops_per_token=1e6)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    report(reporter, 1, 1, lambda step: 0.5)
    assert [event.get("mfu") for event in events()] == [None, None, None]
