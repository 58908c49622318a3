"""tuned.toml: what it says is what was found, and `hpctrain run --config` takes it."""

import json
import os
from dataclasses import replace

import pytest

from hpctrain.config import Config, as_tables, load_config, parse_config
from hpctrain.errors import BenchError
from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.knobs import TuneFacts
from hpctrain.tune.plan import MIB, plan_knobs
from hpctrain.tune.run import write_tuned
from hpctrain.tune.search import Ask, Measured
from hpctrain.tune.store import TuneStore, read_asked, read_trials
from hpctrain.tune.tuned_file import (
    FIRST_WORDS,
    given_tables,
    name_tuning,
    render_tables,
    render_tuned,
    with_settings,
)
from hpctrain.tune.verdict import Choice, Gain, Verdict

MACHINE = {
    "date": "2026-11-20T17:00:00+00:00",
    "hardware": "A CPU, 2 cores",
    "hosts": "localhost:2",
    "mpi": "openmpi5 5.0.11",
    "torch": "2.13.0",
    "horovod": "0.28.1",
    "python": "3.11.7",
    "hpctrain": "0.1.0",
    "commit": "unknown",
}
USERS = """
[model]
preset = "small"

[data.mixture]
"data/a b" = 0.25

[train]
tokens = 1000000

[launch]
np = 2
env = { OMP_PROC_BIND = "true" }
"""
ARM = (("HOROVOD_CYCLE_TIME", "5"), ("comm.bucket_mb", "4"))


def knobs():
    facts = TuneFacts(np=2, nodes=1, cores_per_rank=1, mpi_flavour="openmpi5",
                      gradient_bytes=40 * MIB)  # fmt: skip
    return plan_knobs(facts)[0]


def verdict(arm=ARM):
    gain = Gain(1.08, 1.06, 1.1, 6)
    choices = [
        Choice(knob=knob, value=value, taken=True, gain=gain, why="gains") for knob, value in arm
    ]
    other = Choice(knob="mpi_yield_when_idle", value="0", taken=False, gain=None, why="no room")
    return Verdict(arm, gain if arm else None, (*choices, other))


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    return load_config(path)


def test_the_file_is_the_users_settings_and_the_tuned_ones(tmp_path, users):
    path = tmp_path / "tuned.toml"
    path.write_text(render_tuned(given_tables(users), knobs(), verdict(), MACHINE, np=2))
    tuned = load_config(path)
    expected = as_tables(users)
    expected["comm"]["bucket_mb"] = 4.0
    expected["launch"]["env"] = {"OMP_PROC_BIND": "true", "HOROVOD_CYCLE_TIME": "5"}
    assert as_tables(tuned) == expected


def test_each_choice_has_its_gain_above_it_and_the_head_says_where_it_was_measured(users):
    text = render_tuned(given_tables(users), knobs(), verdict(), MACHINE, np=2, again="-H a:2")
    assert text.startswith(FIRST_WORDS)
    assert max(map(len, text.splitlines())) <= 100
    head = text.partition("\n\n")[0]
    for words in ("2026-11-20", "A CPU, 2 cores", "localhost:2", "torch 2.13.0", "-H a:2",
                  "2 ranks", "1.080 (1.060 to 1.100, 6 pairs)"):  # fmt: skip
        assert words in head
    lines = text.splitlines()
    for setting in ("bucket_mb = 4", 'HOROVOD_CYCLE_TIME = "5"'):
        assert lines[lines.index(setting) - 1].startswith("# "), setting
    assert "1.080 (1.060 to 1.100, 6 pairs) times as fast as 25" in text.replace("\n# ", " ")
    assert "mpi_yield_when_idle" not in text


def test_where_nothing_gained_the_file_is_the_users_own(tmp_path, users):
    path = tmp_path / "tuned.toml"
    text = render_tuned(given_tables(users), knobs(), verdict(arm=()), MACHINE, np=2)
    path.write_text(text)
    assert load_config(path) == users
    assert "the defaults stay" in text


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.path=back\\slash \"quoted\"", "launch.forward=['A_*', 'B']"],
        ["launch.env.NAME=\"a = # b\"", "launch.mpirun_args=['--mca', 'x y']", "optim.lr=3e-4"],
        ["train.activation_checkpointing=true", "optim.clip_norm=0", "model.num_layers=2"],
    ],
)  # fmt: skip
def test_settings_survive_the_file(overrides):
    config = parse_config("", overrides=overrides)
    tables = given_tables(config)
    assert parse_config(render_tables(tables)) == config
    assert (tables == {}) == (config == Config())


def test_settings_are_put_into_a_copy():
    tables = {"launch": {"env": {"A": "1"}}}
    made = with_settings(tables, {"launch.env.B": "2", "comm.bucket_mb": 4})
    assert made == {"launch": {"env": {"A": "1", "B": "2"}}, "comm": {"bucket_mb": 4}}
    assert tables == {"launch": {"env": {"A": "1"}}}


def test_a_file_names_its_tuning_and_is_written_whole_by_that_one_alone(
    tmp_path, users, monkeypatch
):
    mine, out = TuneAsked(folder=tmp_path / "mine", out=tmp_path / "tuned.toml"), "tuned.toml"
    (tmp_path / "mine").mkdir()

    def text_of(asked):
        return render_tuned(given_tables(users), knobs(), verdict(), MACHINE, np=2,
                            tuning=name_tuning(asked.out, asked.folder))  # fmt: skip

    write_tuned(mine, text_of(mine))
    assert "# Work directory: mine" in (tmp_path / out).read_text().splitlines()
    write_tuned(mine, text_of(mine))  # it went on, and writes its own file again
    other = replace(mine, folder=tmp_path / "other")
    other.folder.mkdir()
    with pytest.raises(BenchError, match=r"another tuning found, got mine.*other/tuned\.toml"):
        write_tuned(other, text_of(other))
    assert (tmp_path / out).read_text() == text_of(mine)
    assert (tmp_path / "other" / out).read_text() == text_of(other)

    def no_disk(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_disk)
    with pytest.raises(OSError, match="no space"):
        write_tuned(replace(other, force=True), text_of(other))
    assert (tmp_path / out).read_text() == text_of(mine)


# -- the work directory ----------------------------------------------------------------------------


def test_trials_are_there_after_a_crash_but_for_half_a_line(tmp_path):
    first, second = Ask((), 0, "alone", 9), Ask(ARM, 0, "alone", 8)
    store = TuneStore(tmp_path)
    store.add(first, Measured(0.25, 4.0), load_before=0.5)
    store.add(second, Measured(None, 2.0), problem="it failed")
    store.close()
    with open(tmp_path / "trials.jsonl", "ab") as file:
        file.write(b'{"arm": [], "round": 1, "rung": "ag')
    store = TuneStore(tmp_path)
    assert store.find(first) == Measured(0.25, 4.0)
    assert store.find(second) == Measured(None, 2.0)
    assert store.find(Ask((), 1, "again", 7)) is None
    store.add(Ask((), 1, "again", 7), Measured(0.5, 4.0))
    store.close()
    records = list(read_trials(tmp_path))
    assert [record["step_s"] for record in records] == [0.25, None, 0.5]
    assert records[1]["problem"] == "it failed"


def test_one_process_at_a_time(tmp_path):
    store = TuneStore(tmp_path)
    with pytest.raises(BenchError, match="another hpctrain tunes here"):
        TuneStore(tmp_path)
    store.close()
    TuneStore(tmp_path).close()


def test_a_directory_of_another_version_is_refused(tmp_path):
    assert read_asked(tmp_path) is None
    (tmp_path / "tune.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(BenchError, match=r"got schema 99; expected 2"):
        read_asked(tmp_path)
    (tmp_path / "tune.json").write_text("{")
    with pytest.raises(BenchError, match="not JSON"):
        read_asked(tmp_path)
