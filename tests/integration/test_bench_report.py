"""A real measurement's report: real ranks' parts add up, and the commands read what bench wrote."""

import json
import subprocess
import sys

import launching
import pytest
from small_training import SETTINGS, as_options, prepare_data

from hpctrain.bench.report.parts import PARTS

pytestmark = [pytest.mark.needs("mpirun", "horovod")]


def hpctrain(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "hpctrain", *arguments], cwd=folder, capture_output=True, text=True,
        timeout=launching.TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_real_measurement_is_reported_and_compared(tmp_path):
    data = prepare_data(tmp_path)
    settings = {**SETTINGS, "data.path": data, "train.global_batch_size": 12}
    # Strong: of two so small sizes either may be the faster one.
    done = hpctrain(
        tmp_path, "bench", "--np", "1,2", "--mode", "strong", "--repeats", "3", "--warmup-steps",
        "2", "--steps", "6", "--oversubscribe", "--no-allreduce", "--out", "b",
        *as_options(settings),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b" / "report.json").read_text())
    one, two = record["sizes"]
    for size in (one, two):
        assert set(size["parts_s"]) == set(PARTS)
        assert sum(size["parts_s"].values()) == pytest.approx(size["step_s"])
        assert len(size["repeats"]) == 3
        assert size["rate"]["median"] > 0
    assert one["parts_s"]["waiting"] == 0
    assert two["wire_bytes"] == one["params"] * 4
    assert sum(two["lost_points"].values()) == pytest.approx(100 * (1 - two["efficiency"]))
    assert two["forecast"]["why"].startswith("no all-reduce was measured")

    again = hpctrain(tmp_path, "bench", "report", "b", "--json")
    assert json.loads(again.stdout)["sizes"] == record["sizes"]
    same = hpctrain(tmp_path, "bench", "compare", "b", "b", "--fail-below", "0.9", "--json")
    assert same.returncode == 0, same.stderr
    assert [case["verdict"] for case in json.loads(same.stdout)["cases"]] == (
        ["no difference seen"] * 2
    )
