"""`hpctrain bench allreduce` over ssh between two nodes."""

import json
import sys

import pytest
from nodes import nodes_up

from hpctrain.bench.allreduce.results import check_result, fit_links, result_from_json

pytestmark = pytest.mark.needs("mpirun", "horovod")


def test_two_nodes_are_measured_over_their_cable(tmp_path):
    with nodes_up(tmp_path) as nodes:
        before = nodes.received_bytes("n1")
        out = nodes.check_output(
            "n0", sys.executable, "-m", "hpctrain", "bench", "allreduce", "--hosts",
            str(nodes.hostfile), "--np", "4", "--sizes", "4,64k,1M", "--repeats", "3", "--json",
        )  # fmt: skip
        received = nodes.received_bytes("n1") - before
    result = check_result(result_from_json(json.loads(out)))
    assert (result.n, result.nodes, result.placement) == (4, 2, "2 nodes with 2 ranks each")
    assert result.backends == ("horovod", "mpi4py", "torch")
    assert len(result.points) == 9
    assert received > 3 * 3 * (1 << 20)
    assert set(fit_links(result)) == {"horovod", "mpi4py", "torch"}
