"""What a trial of anybody's program measured, read from its events as they are."""

import json
import math

import pytest

from hpctrain.bench.samples import read_sample, sample_from_json
from hpctrain.errors import BenchError
from hpctrain.events import encode_event


@pytest.fixture
def read(tmp_path):
    """Return a function that reads what these steps' events say."""

    def read(*steps, warmup=0):
        (tmp_path / "plan.json").write_text('{"np": 2}')
        lines = [encode_event("step", step=i, **step) for i, step in enumerate(steps, start=1)]
        (tmp_path / "events.jsonl").write_bytes(b"".join(lines))
        return read_sample(tmp_path, warmup)

    return read


def test_steps_of_no_time_reach_the_gate(read):
    """Left out, they would make the others look like all there was."""
    assert read({"step_time_s": 0.5}, {"step_time_s": 0}, {"step_time_s": -1}).step_time_s == (
        0.5, 0.0, -1.0,
    )  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, "soon", True])
def test_a_step_time_that_is_no_number_is_no_crash_and_no_time(read, value):
    sample = read({"step_time_s": 0.5, "tokens_per_s": 8.0},
                  {"step_time_s": value, "tokens_per_s": 8.0})  # fmt: skip
    assert sample.step_time_s[0] == 0.5
    assert not math.isfinite(sample.step_time_s[1])
    assert sample.tokens_per_step == 4.0


def test_tokens_a_step_are_not_rounded(read):
    assert read({"step_time_s": 0.1, "tokens_per_s": 4.0}).tokens_per_step == pytest.approx(0.4)
    two = read({"step_time_s": 0.5, "tokens_per_s": 2.0}, {"step_time_s": 0.5, "tokens_per_s": 3.6})
    assert two.tokens_per_step == pytest.approx(1.4)
    assert read({"step_time_s": 0.5, "tokens_per_s": math.nan}).tokens_per_step is None
    assert read({"step_time_s": 0.5}).tokens_per_step is None


def test_each_loss_stays_at_its_step(read):
    steps = [{"step_time_s": 0.5, **loss}
             for loss in ({"loss": 4}, {"loss": math.nan}, {}, {"loss": 3.5})]  # fmt: skip
    sample = read(*steps)
    assert sample.losses == (4.0, None, None, 3.5)
    assert read(*steps, warmup=2).losses == sample.losses  # the warm-up's are among them
    assert sample_from_json(json.loads(json.dumps(sample.as_json()))) == sample
    assert read({"step_time_s": 0.5}).losses == ()


def test_nothing_to_measure_says_what_to_do(read):
    with pytest.raises(BenchError, match="report_step"):
        read({"loss": 1.0})
