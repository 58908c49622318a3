"""Events: lines of JSON that a rank writes, whatever its values, and silence without a launcher."""

import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpctrain
from hpctrain.events import EVENTS_FD_VARIABLE, emit, encode_event, report_step


def json_values(**more):
    plain = st.none() | st.booleans() | st.integers() | st.floats(**more) | st.text()
    return st.recursive(
        plain, lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=8
    )


def strict(line):
    """Parse JSON as strictly as other languages do."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


@settings(max_examples=60)
@given(json_values())
def test_every_value_is_one_line_of_strict_json(value):
    line = encode_event("step", value=value)
    assert line.index(b"\n") == len(line) - 1
    record = strict(line)
    assert (record["schema"], record["event"]) == (1, "step")


@settings(max_examples=60)
@given(json_values(allow_nan=False, allow_infinity=False))
def test_values_come_back_as_they_were(value):
    assert strict(encode_event("step", value=value))["value"] == value


def test_a_broken_loss_stays_visible():
    losses = {"loss": float("nan"), "worst": float("inf"), "all": [1.0, float("-inf")]}
    record = strict(encode_event("step", step=1, val_loss=None, deep={"x": losses}))
    assert record["deep"] == {"x": {"loss": "nan", "worst": "inf", "all": [1.0, "-inf"]}}
    assert record["val_loss"] is None


def test_the_time_is_the_wall_clocks_whatever_a_field_says():
    before_s = time.time()
    record = strict(encode_event("step", time_s=0.0))
    assert before_s - 1e-3 <= record["time_s"] <= time.time() + 1e-3


def test_a_value_that_is_no_json_becomes_text_or_a_number():
    from decimal import Decimal

    event = json.loads(encode_event("step", a={1}, b=Decimal("1.5"), c=object, d={2: (3,)}))
    assert (event["a"], event["b"], event["d"]) == ("{1}", 1.5, {"2": [3]})
    assert "object" in event["c"]
    assert json.loads(encode_event("step", time_s="mine"))["time_s"] > 1e9


@pytest.fixture
def pipe(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_FD_VARIABLE, str(writer))
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test closed it


def test_a_step_reaches_the_shims_pipe(pipe):
    hpctrain.report_step(3, loss=0.25)
    record = strict(os.read(pipe[0], 4096))
    assert record.pop("time_s") > 0
    assert record == {"schema": 1, "event": "step", "step": 3, "loss": 0.25}


def test_without_a_launcher_nothing_happens(monkeypatch):
    monkeypatch.delenv(EVENTS_FD_VARIABLE, raising=False)
    report_step(1, loss=0.5)
    emit("anything", value=object())  # not even looked at


def test_training_goes_on_when_the_shim_is_gone(pipe):
    os.close(pipe[0])
    report_step(1)
    assert EVENTS_FD_VARIABLE not in os.environ
    report_step(2)


@pytest.mark.parametrize("descriptor", ["", "no number", "-1", "1000000"])
def test_training_goes_on_with_a_descriptor_that_is_none(monkeypatch, descriptor):
    monkeypatch.setenv(EVENTS_FD_VARIABLE, descriptor)
    report_step(1)
    assert EVENTS_FD_VARIABLE not in os.environ


class Scalar:
    """Like numpy.float32 and a tensor of one element: a number, and no float."""

    def __float__(self):
        return 0.5


def test_a_step_with_a_scalar_of_numpy_or_torch_ends_no_training(pipe):
    report_step(1, loss=Scalar())
    assert strict(os.read(pipe[0], 4096))["step"] == 1
