"""The folder of a scaling measurement: gone on with, never mixed, whole after a crash."""

import dataclasses
import json

import pytest

from hpctrain.bench.allreduce.results import AllreducePoint, AllreduceResult
from hpctrain.bench.samples import Sample
from hpctrain.bench.scaling.asked import BenchAsked
from hpctrain.bench.scaling.cases import StoredSample, read_bench
from hpctrain.bench.scaling.metric import parse_metric, read_metric
from hpctrain.bench.scaling.placements import Room
from hpctrain.bench.scaling.request import plan_bench
from hpctrain.bench.scaling.store import commit_warning, open_bench
from hpctrain.config import Config, load_config
from hpctrain.errors import BenchError, ConfigError, PlanError
from hpctrain.launch.prepare import Asked

ENVIRONMENT = {"cpu": "x", "cores": "2", "torch": "2.13.0", "commit": "aaa"}
STEPS = Sample(
    np=1, step_time_s=(0.5, 0.25), losses=(4.0, 3.5), tokens_per_step=64, precision="fp32",
    params=10, flops_per_token=60.0, peak_flops=None, device_name=None, ranks=(),
)  # fmt: skip


def plan(environment=ENVIRONMENT, config=None, **asked):
    made, shared, _ = plan_bench(
        BenchAsked(run=Asked(), sizes=(1, 2), **asked), config or Config(),
        (Room(name="localhost", slots=2, cores=2),), is_local=True, environment=environment,
        price=None,
    )  # fmt: skip
    return made, shared


def stored(repeat, case="weak-fp32-np1-1node"):
    return StoredSample(
        case=case, repeat=repeat, load_before=0.1, sample=STEPS, metric=(1.5, 2.5), time_s=1.0,
        run=f"runs/{case}-{repeat + 1}", wall_s=3.0,
    )  # fmt: skip


def test_what_was_written_is_read_and_gone_on_with(tmp_path):
    folder = tmp_path / "b"
    made, shared = plan()
    with open_bench(folder, made, shared) as bench:
        assert not bench.went_on
        bench.append(stored(0))
    later = plan({**ENVIRONMENT, "date": "tomorrow"})[0]
    with open_bench(folder, later, shared) as bench:
        assert bench.went_on
        assert bench.plan == made  # it keeps the environment that it began in
        bench.append(stored(1))
    assert read_bench(folder) == (made, (stored(0), stored(1)), {})
    assert load_config(folder / "config.toml") == shared


@pytest.mark.parametrize("end", [b'{"case": "weak', b"\xff", b'{"case": "x", "repeat": 0}'])
def test_a_half_line_is_measured_again(tmp_path, end):
    made, shared = plan()
    with open_bench(tmp_path, made, shared) as bench:
        bench.append(stored(0))
    with open(tmp_path / "samples.jsonl", "ab") as file:
        file.write(end)
    assert read_bench(tmp_path)[1] == (stored(0),)
    with open_bench(tmp_path, made, shared) as bench:
        assert bench.samples == [stored(0)]
        bench.append(stored(1))
    assert read_bench(tmp_path)[1] == (stored(0), stored(1))


def test_a_damaged_line_is_named(tmp_path):
    made, shared = plan()
    with open_bench(tmp_path, made, shared) as bench:
        bench.append(stored(0))
    with open(tmp_path / "samples.jsonl", "ab") as file:
        file.write(b'{"case": 3}\n')
    with pytest.raises(BenchError, match=r"samples\.jsonl:2: cannot be read"):
        read_bench(tmp_path)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (plan(repeats=3), "another --repeats, got 3; expected 5"),
        (plan(mode="strong"), "another --mode, got strong; expected weak"),
        (plan(config=load_config(None, ["train.seed=9"])), "another train.seed, got 9"),
        (plan(config=load_config(None, ["train.batch_size_per_rank=9"])),
         "another train.batch_size_per_rank, got 9"),
        (plan({**ENVIRONMENT, "torch": "2.14.0"}), "another torch, got 2.14.0; expected 2.13.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_another_measurement_is_not_mixed_in(tmp_path, now, words):
    with open_bench(tmp_path, *plan()):
        pass
    with pytest.raises(PlanError) as wrong, open_bench(tmp_path, *now):
        pass
    assert words in str(wrong.value)
    assert "another cases" not in str(wrong.value)


def test_repeats_can_be_raised_and_not_lowered(tmp_path):
    made, shared = plan(repeats=2)
    with open_bench(tmp_path, made, shared) as bench:
        bench.append(stored(0))
    more = plan(repeats=7)[0]
    with open_bench(tmp_path, more, shared) as bench:
        assert bench.plan == more
        assert bench.samples == [stored(0)]
    assert read_bench(tmp_path)[0] == more
    both = plan({**ENVIRONMENT, "torch": "2.14.0"}, repeats=9)
    with pytest.raises(PlanError, match="another torch"), open_bench(tmp_path, *both):
        pass
    assert read_bench(tmp_path)[0] == more
    with pytest.raises(PlanError, match="another --repeats, got 2"), open_bench(tmp_path, made,
                                                                               shared):  # fmt: skip
        pass


def test_a_changed_commit_is_warned_of():
    made = plan()[0]
    changed = dataclasses.replace(made, environment={**ENVIRONMENT, "commit": "bbb"})
    assert commit_warning(made, made) is None
    assert "aaa" in commit_warning(made, changed)


def test_named_trials_are_measured_again_and_their_figures_kept_aside(tmp_path):
    made, shared = plan()
    other = "weak-fp32-np2-1node"
    with open_bench(tmp_path, made, shared) as bench:
        for each in (stored(0), stored(0, other), stored(1), stored(1, other)):
            bench.append(each)
        with pytest.raises(
            PlanError, match=r"--remeasure: no finished trial in .*, got x; expected"
        ):
            bench.drop(["x"])
        bench.drop(["weak-fp32-np1-1node-2"])
        assert bench.samples == [stored(0), stored(0, other), stored(1, other)]
        bench.drop([other])
    assert read_bench(tmp_path)[1] == (stored(0),)
    dropped = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert [each["run"] for each in dropped] == [
        "runs/weak-fp32-np1-1node-2",
        f"runs/{other}-1",
        f"runs/{other}-2",
    ]


def test_folders_that_are_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlanError, match="holds other files"), open_bench(tmp_path, *plan()):
        pass
    with pytest.raises(BenchError, match="no measurement"):
        read_bench(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_crash_before_the_plan_was_written_is_no_obstacle(tmp_path):
    (tmp_path / "config.toml").write_text("half")
    (tmp_path / ".lock").touch()
    with open_bench(tmp_path, *plan()) as bench:
        assert not bench.went_on


def test_two_do_not_measure_into_one_folder(tmp_path):
    with (
        open_bench(tmp_path, *plan()),
        pytest.raises(BenchError, match="another hpctrain is measuring there"),
        open_bench(tmp_path, *plan()),
    ):
        pass


def test_all_reduces_by_placement(tmp_path):
    point = AllreducePoint(backend="horovod", bytes_=4, repeats_s=(1e-5, 2e-5), wrong=0, n=2)
    result = AllreduceResult(n=2, nodes=1, placement="1 node with 2 ranks", points=(point,))
    with open_bench(tmp_path, *plan()) as bench:
        bench.write_allreduces({"np2-1node": result.as_json()})
    assert read_bench(tmp_path)[2] == {"np2-1node": result}
    (tmp_path / "allreduce.json").write_text("{}")
    with pytest.raises(BenchError, match=r"allreduce\.json"):
        read_bench(tmp_path)


def test_a_plan_of_another_schema_is_refused(tmp_path):
    with open_bench(tmp_path, *plan()):
        pass
    record = json.loads((tmp_path / "bench.json").read_text())
    (tmp_path / "bench.json").write_text(json.dumps({**record, "schema": 99}))
    with pytest.raises(BenchError, match="schema 99"):
        read_bench(tmp_path)


# -- rates that a program prints -----------------------------------------------------------------


def logs(folder, *texts):
    (folder / "logs").mkdir()
    for rank, text in enumerate(texts):
        (folder / "logs" / f"rank-{rank:05d}.log").write_text(text)
    return folder


def test_a_metric_is_that_of_the_first_rank_that_prints_it(tmp_path):
    run = logs(tmp_path, "hello\n", "warm 5\nrate: 1,000.5 t/s\nrate: 2e3\n", "rate: 7\n")
    assert read_metric(run, parse_metric(r"rate: ([\d.,e]+)"), 0) == (1000.5, 2000.0)
    assert read_metric(run, parse_metric(r"rate: ([\d.,e]+)"), 1) == (2000.0,)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [(r"speed (\d+)", "found"), (r"rate: (\w+)", "no number"), (r"zero (\d)", "above 0")],
)
def test_a_metric_that_is_not_there(tmp_path, pattern, words):
    run = logs(tmp_path, "rate: fast\nzero 0\n")
    with pytest.raises(BenchError, match=words):
        read_metric(run, parse_metric(pattern), 0)


@pytest.mark.parametrize("rate", ["nan", "inf", "-1"])
def test_a_metric_that_is_no_rate_is_refused_with_a_next_step(tmp_path, rate):
    run = logs(tmp_path, f"rate: 5\nrate: {rate}\n")
    with pytest.raises(BenchError, match=r"finite rates above 0.*Correct what COMMAND prints"):
        read_metric(run, parse_metric(r"rate: (\S+)"), 0)


@pytest.mark.parametrize("text", ["(", "no group", "(a)(b)"])
def test_patterns_that_are_none(text):
    with pytest.raises(ConfigError, match="--metric"):
        parse_metric(text)
