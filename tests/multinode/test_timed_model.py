"""The model with timed layers, trained for real on two nodes."""

import json

import pytest
from labs import lab_up
from terraforming import ROOT

from hpctrain.bench.samples import read_sample
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.hosts import Host
from hpctrain.scaling_model.calibrate import predict_from_samples
from hpctrain.scaling_model.links import Link

pytestmark = [pytest.mark.needs("mpirun", "torch", "horovod", "netns", "sshd")]
LAYERS, LAYER_KB, STEPS, WARMUP = 4, 64, 8, 2
SHAPE = f"layers={LAYERS},layer_kb={LAYER_KB},forward_ms=3,backward_ms=6"
FACTORY = "hpctrain.bench.worker_timed_model"
SETTINGS = (
    f"model.factory={FACTORY}:build",
    f"data.factory={FACTORY}:open_samples",
    f'launch.env={{HPCTRAIN_TIMED_MODEL = "{SHAPE}", PYTHONPATH = "{ROOT}"}}',
    "launch.threads_per_rank=1",
    "model.seq_len=8",
    "model.vocab_size=256",
    "train.batch_size_per_rank=1",
    "train.device=cpu",
    f"train.steps={STEPS}",
    f"comm.bucket_mb={2 * LAYER_KB / 1024}",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with lab_up(tmp_path_factory.mktemp("timed"), "--nodes", "2", "--bandwidth", "400mbit") as lab:
        yield lab


def trial(lab, np):
    hosts = tuple(Host(lab.host(f"n{number + 1}"), slots=1) for number in range(np))
    return Trial(
        name=f"timed-{np}", runs_dir=lab.folder / "runs", np=np, hosts=hosts,
        ssh_config=lab.path / "ssh_config", overrides=SETTINGS,
    )  # fmt: skip


def test_waits_stand_in_for_computing_and_the_exchange_is_real(lab):
    before = lab.received_bytes("n2")
    two = read_sample(run_trial(trial(lab, 2)), WARMUP)
    gradients = LAYERS * LAYER_KB * 1024
    assert two.np == 2
    assert two.params == gradients / 4
    assert len(two.step_time_s) == STEPS - WARMUP
    assert len({rank.host for rank in two.ranks}) == 2
    for rank in two.ranks:
        assert min(rank.forward_s) >= LAYERS * 3e-3
        assert min(rank.backward_s) >= LAYERS * 6e-3
        assert min(rank.exposed_comm_s) > 0.0
    # Two ranks' all-reduce sends each of them the whole of the gradients.
    assert lab.received_bytes("n2") - before >= STEPS * gradients

    one = read_sample(run_trial(trial(lab, 1)), WARMUP)
    found = predict_from_samples(
        one, two, (Link(1e-4, 50e6), None), [(1, 1), (2, 1)], bucket_mb=2 * LAYER_KB / 1024
    )
    assert found[0].step_s <= found[1].step_s
    assert found[1].comm_s >= gradients / 50e6
    plan = json.loads((lab.folder / "runs" / "timed-2" / "plan.json").read_text())
    assert plan["np"] == 2
