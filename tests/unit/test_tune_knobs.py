"""Which settings are tried where, and why the others are not: a table of facts."""

import pytest

from hpctrain.config import parse_config
from hpctrain.tune.knobs import (
    ALGO,
    ALLREDUCE,
    BUCKET,
    COMPRESSION,
    CYCLE,
    EAGER,
    MAX_CHANNELS,
    MIN_CHANNELS,
    PROTO,
    SOCKETS,
    THREADS,
    YIELD,
    TuneFacts,
)
from hpctrain.tune.plan import MIB, knob_names, plan_knobs

OVER_MPI = [BUCKET, YIELD, CYCLE, ALLREDUCE, THREADS, COMPRESSION]
OVER_NCCL = [BUCKET, CYCLE, ALGO, PROTO, MIN_CHANNELS, MAX_CHANNELS]
CPU = {"np": 2, "nodes": 1, "cores_per_rank": 4, "mpi_flavour": "openmpi5",
       "gradient_bytes": 40 * MIB}  # fmt: skip
GPU = {**CPU, "np": 16, "nodes": 2, "uses_gpus": True, "has_nccl": True}


def plan(only=(), **facts):
    knobs, left_out = plan_knobs(TuneFacts(**facts), only)
    assert sorted([k.name for k in knobs] + [o.name for o in left_out]) == sorted(knob_names())
    assert all(knob.reason and knob.source and knob.values for knob in knobs)
    assert all(each.why for each in left_out)
    return {knob.name: knob for knob in knobs}, {each.name: each.why for each in left_out}


def labels(knob):
    return [value.label for value in knob.values]


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        (CPU, OVER_MPI),
        ({**CPU, "mpi_flavour": "openmpi4"}, OVER_MPI),
        ({**CPU, "mpi_flavour": "mpich"}, [BUCKET, CYCLE, THREADS, COMPRESSION]),
        ({**CPU, "np": 1}, [THREADS]),
        ({**CPU, "backend": "none"}, [THREADS]),
        ({**CPU, "backend": "ddp", "exchange": "native"}, [BUCKET, THREADS, COMPRESSION]),
        ({**CPU, "exchange": "native"}, [YIELD, CYCLE, ALLREDUCE, THREADS, COMPRESSION]),
        ({**CPU, "cores_per_rank": None}, [BUCKET, YIELD, CYCLE, ALLREDUCE, COMPRESSION]),
        (GPU, [*OVER_NCCL, SOCKETS, COMPRESSION]),
        ({**GPU, "nodes": 1}, [*OVER_NCCL, COMPRESSION]),
        ({**GPU, "has_rdma": True}, [*OVER_NCCL, COMPRESSION]),
        # Horovod without NCCL: gradients go through main memory and MPI.
        ({**GPU, "has_nccl": False}, [BUCKET, YIELD, CYCLE, ALLREDUCE, EAGER, COMPRESSION]),
        ({**GPU, "backend": "ddp", "exchange": "native"},
         [BUCKET, ALGO, PROTO, MIN_CHANNELS, MAX_CHANNELS, SOCKETS, COMPRESSION]),
    ],
)  # fmt: skip
def test_what_applies_where(facts, names):
    knobs, _ = plan(**facts)
    assert sorted(knobs) == sorted(names)


def test_only_what_was_asked_for():
    knobs, left_out = plan(only=(BUCKET, CYCLE), **CPU)
    assert sorted(knobs) == sorted([BUCKET, CYCLE])
    assert left_out[YIELD] == "not asked for (--only)"


def test_what_this_shell_sets_is_the_users():
    shell = frozenset({"HOROVOD_CYCLE_TIME", "OMPI_MCA_mpi_yield_when_idle", "OMP_NUM_THREADS"})
    knobs, left_out = plan(**CPU, shell=shell)
    assert not {CYCLE, YIELD, THREADS} & set(knobs)
    assert "OMPI_MCA_mpi_yield_when_idle is set in this shell" in left_out[YIELD]


def test_open_mpis_settings_are_variables_in_both_versions():
    for flavour in ("openmpi4", "openmpi5"):
        knobs, _ = plan(**{**CPU, "mpi_flavour": flavour})
        assert dict(knobs[YIELD].values[0].settings) == {
            "launch.env.OMPI_MCA_mpi_yield_when_idle": "0"
        }
        assert dict(knobs[ALLREDUCE].settings_of("ring")) == {
            "launch.env.OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
            "launch.env.OMPI_MCA_coll_tuned_allreduce_algorithm": "4",
        }


def test_long_messages_without_asking_only_where_tcp_carries_them():
    several, _ = plan(**{**CPU, "np": 3, "nodes": 3})
    assert dict(several[EAGER].values[0].settings) == {
        "launch.env.OMPI_MCA_btl_tcp_eager_limit": "33554432",
        "launch.env.OMPI_MCA_btl_tcp_rndv_eager_limit": "33554432",
    }
    for other in ({}, {"np": 3, "nodes": 3, "has_rdma": True}):
        knobs, left_out = plan(**{**CPU, **other})
        assert EAGER not in knobs
        assert "MPI does not exchange over TCP" in left_out[EAGER]


def test_open_mpi_5_on_several_nodes_needs_han_out_of_the_way():
    several = {**CPU, "np": 4, "nodes": 2}
    five, _ = plan(**several)
    four, _ = plan(**{**several, "mpi_flavour": "openmpi4"})
    assert labels(five[ALLREDUCE]) == ["tuned", *labels(four[ALLREDUCE])]
    han = "launch.env.OMPI_MCA_coll_han_priority"
    assert all(value.settings[han] == "0" for value in five[ALLREDUCE].values)
    assert not any(han in value.settings for value in four[ALLREDUCE].values)
    ring = five[ALLREDUCE].settings_of("segmented_ring")
    assert ring["launch.env.OMPI_MCA_coll_tuned_allreduce_algorithm_segmentsize"] == "1048576"


@pytest.mark.parametrize(
    ("gradient_mb", "base", "tried"),
    [
        (40.0, 25.0, ["10", "4", "1", "64"]),  # 2 buckets → 4, 10, 40, 1
        (3.1, 25.0, ["1", "0.25"]),  # one bucket is one bucket, whatever its size
        (475.0, 25.0, ["10", "64", "128", "256"]),  # 4 MiB would be 119 buckets
        (0.01, 25.0, []),
    ],
)
def test_bucket_sizes_that_make_another_number_of_buckets(gradient_mb, base, tried):
    facts = {**CPU, "gradient_bytes": int(gradient_mb * MIB), "given": {BUCKET: base}}
    knobs, left_out = plan(**facts)
    assert (labels(knobs[BUCKET]) if BUCKET in knobs else []) == tried
    if not tried:
        assert left_out[BUCKET] == "no value to try besides 25"


def test_values_differ_from_what_a_run_has_now():
    given = {CYCLE: "x", "launch.env.HOROVOD_CYCLE_TIME": "5", THREADS: 2, COMPRESSION: "fp16",
             "launch.env.OMPI_MCA_mpi_yield_when_idle": "0"}  # fmt: skip
    knobs, left_out = plan(**CPU, given=given)
    assert (knobs[CYCLE].base, "5" in labels(knobs[CYCLE])) == ("5", False)
    assert (knobs[YIELD].base, labels(knobs[YIELD])) == ("0", ["1"])
    assert labels(knobs[THREADS]) == ["4", "3"]
    assert COMPRESSION in left_out


@pytest.mark.parametrize(("cores", "tried"), [(1, ["2"]), (2, ["1"]), (8, ["7", "4"])])
def test_threads_leave_a_core_to_the_exchange(cores, tried):
    knobs, _ = plan(**{**CPU, "cores_per_rank": cores})
    assert labels(knobs[THREADS]) == tried


def test_only_compression_changes_the_numbers():
    for facts in (CPU, GPU):
        knobs, _ = plan(**facts)
        assert [name for name, knob in knobs.items() if knob.lossy] == [COMPRESSION]
    ddp, _ = plan(**{**CPU, "backend": "ddp", "exchange": "native"})
    assert labels(ddp[COMPRESSION]) == ["fp16", "bf16"]


def test_ll128_is_never_forced():
    knobs, _ = plan(**GPU)
    assert labels(knobs[PROTO]) == ["Simple", "LL"]


@pytest.mark.parametrize("facts", [CPU, GPU, {**CPU, "np": 4, "nodes": 2}])
def test_every_value_is_a_setting_that_the_configuration_takes(facts):
    import json

    knobs, _ = plan(**facts)
    for knob in knobs.values():
        for value in knob.values:
            words = [f"{key}={json.dumps(item)}" for key, item in value.settings.items()]
            config = parse_config("", overrides=words)
            for key, item in value.settings.items():
                section, name, *variable = key.split(".", 2)
                found = getattr(getattr(config, section), name)
                assert (found[variable[0]] if variable else found) == item
