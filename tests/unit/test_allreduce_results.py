"""All-reduce results: bandwidths as nccl-tests defines them, JSON, wrong sums, the fit."""

import json
from dataclasses import replace

import pytest

from hpctrain.bench.allreduce.measure import read_allreduce, write_allreduce
from hpctrain.bench.allreduce.results import (
    AllreducePoint,
    AllreduceResult,
    Skipped,
    algbw_gb_per_s,
    busbw_gb_per_s,
    check_result,
    find_algorithm,
    fit_links,
    result_from_json,
)
from hpctrain.bench.allreduce.show import render_result
from hpctrain.errors import BenchError
from hpctrain.events import encode_event


def a_point(**more):
    given = {"backend": "torch", "bytes_": 1 << 20, "repeats_s": (0.002, 0.001, 0.004), "wrong": 0,
             "n": 2, "iterations": 3, "checked": 1 << 20}  # fmt: skip
    return AllreducePoint(**{**given, **more})


def a_result(*points, **more):
    given = {"n": 2, "nodes": 1, "placement": "1 node with 2 ranks", "points": points}
    return AllreduceResult(**{**given, **more})


# Rows that all_reduce_perf of nccl-tests printed: (ranks, bytes, us, algbw, busbw in GB/s).
@pytest.mark.parametrize(
    ("n", "bytes_", "time_us", "algbw", "busbw"),
    [
        (8, 1048576, 105.9, 9.90, 17.33),
        (8, 67108864, 1074.3, 62.47, 109.32),
        (8, 134217728, 1866.5, 71.91, 125.84),
        (16, 1073741824, 10776, 99.64, 186.83),
        (16, 4294967296, 42381, 101.34, 190.02),
    ],
)
def test_bandwidths_are_those_that_nccl_tests_prints(n, bytes_, time_us, algbw, busbw):
    # The printed time has four or five digits, so the last digit of the bandwidth may differ.
    assert algbw_gb_per_s(bytes_, time_us * 1e-6) == pytest.approx(algbw, rel=1e-3)
    assert busbw_gb_per_s(bytes_, time_us * 1e-6, n) == pytest.approx(busbw, rel=1e-3)


def test_one_rank_has_no_bus():
    assert busbw_gb_per_s(1 << 20, 0.001, 1) == 0.0


def test_median_and_p99_are_over_repeats():
    point = a_point(repeats_s=tuple(range(1, 201)))
    assert (point.median_s, point.p99_s) == (100.5, 198)
    assert a_point().p99_s == 0.004  # of few repeats the slowest
    assert a_point(repeats_s=(0.5,)).p99_s == 0.5


def test_a_result_comes_back_from_json_whole(tmp_path):
    result = a_result(
        a_point(), a_point(backend="mpi4py", wrong=3, device="cpu"),
        skipped=(Skipped(backend="horovod", bytes_=None, reason="cannot be imported"),),
        environment={"mpi": "Open MPI v5.0.11"},
    )  # fmt: skip
    write_allreduce(tmp_path / "r.json", result)
    record = json.loads((tmp_path / "r.json").read_text())
    assert result_from_json(record) == result
    assert record["points"][0]["busbw_gb_per_s"] == pytest.approx(1048576 / 0.002 / 1e9)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("key", ["points", "n", "environment"])
def test_a_damaged_result_is_refused(key):
    record = a_result(a_point()).as_json()
    del record[key]
    with pytest.raises(BenchError, match=f"damaged, got no '{key}'"):
        result_from_json(record)
    with pytest.raises(BenchError, match="got schema 99"):
        result_from_json({"schema": 99})


def test_every_wrong_point_is_named():
    wrong = [a_point(wrong=1), a_point(), a_point(backend="mpi4py", bytes_=4, wrong=7)]
    with pytest.raises(BenchError) as caught:
        check_result(a_result(*wrong))
    assert len(caught.value.messages) == 2
    assert "torch: wrong sums at 1048576 bytes, got 1 wrong of 1048576" in str(caught.value)
    assert check_result(a_result(a_point())).points == (a_point(),)


def test_nothing_measured_is_an_error_with_the_reasons():
    skipped = (Skipped(backend="torch", bytes_=None, reason="cannot be imported: no torch"),)
    with pytest.raises(BenchError, match="nothing was measured, got torch: cannot be imported"):
        check_result(a_result(skipped=skipped))


def ring_points(latency_s, bandwidth, n, backend="torch"):
    sizes = [4**power for power in range(1, 15)]
    return [
        a_point(
            backend=backend, bytes_=size, n=n,
            repeats_s=(2 * (n - 1) * (latency_s + size / n / bandwidth),) * 3,
        )
        for size in sizes
    ]  # fmt: skip


def test_the_fit_finds_the_link_that_times_were_made_with():
    fits = fit_links(a_result(*ring_points(20e-6, 12.5e9, 4), n=4, nodes=4))
    assert fits["torch"].link.latency_s == pytest.approx(20e-6, rel=1e-6)
    assert fits["torch"].link.bandwidth_bytes_per_s == pytest.approx(12.5e9, rel=1e-6)
    assert max(map(abs, fits["torch"].residuals)) < 1e-6


def test_the_fit_is_in_what_is_kept(tmp_path):
    result = a_result(*ring_points(20e-6, 12.5e9, 4), a_point(backend="horovod", n=4), n=4, nodes=4)
    write_allreduce(tmp_path / "r.json", result)
    record = json.loads((tmp_path / "r.json").read_text())
    assert set(record["fits"]) == {"torch"}  # one size of horovod is no fit
    fit = record["fits"]["torch"]
    assert fit["latency_s"] == pytest.approx(20e-6, rel=1e-6)
    assert fit["bandwidth_bytes_per_s"] == pytest.approx(12.5e9, rel=1e-6)
    assert fit["handshake_s"] == 0.0
    assert [each["bytes"] for each in fit["residuals"]] == [4**power for power in range(1, 15)]
    slow = replace(result.points[0], repeats_s=tuple(2 * t for t in result.points[0].repeats_s))
    worse = a_result(slow, *result.points[1:], n=4, nodes=4).as_json()["fits"]["torch"]
    # A size that takes twice as long as the fit says is off by half.
    assert worse["residuals"][0]["residual"] == pytest.approx(-0.5, abs=0.1)
    assert worse["error"] > 0.1
    assert result_from_json(record) == result


def test_too_few_sizes_or_ranks_have_no_fit():
    points = ring_points(1e-6, 1e9, 2)
    assert fit_links(a_result(*points[:2])) == {}
    assert fit_links(a_result(*[replace(p, n=1) for p in points], n=1)) == {}


@pytest.mark.parametrize(
    ("backend", "device", "mpi", "algorithm"),
    [
        ("mpi4py", "cpu", "Open MPI v5.0.11", "openmpi"),
        ("horovod", "cpu", "Open MPI v4.1.8", "openmpi"),
        ("horovod", "cuda", "Open MPI v5.0.11", "ring"),
        ("torch", "cpu", "Open MPI v5.0.11", "ring"),
        ("mpi4py", "cpu", "Intel(R) MPI Library", "ring"),
    ],
)
def test_the_algorithm_is_the_librarys(backend, device, mpi, algorithm):
    result = a_result(a_point(backend=backend, device=device), environment={"mpi": mpi})
    assert find_algorithm(result, backend) == algorithm


def test_the_table_shows_wrong_sums_fits_and_what_was_left_out():
    result = a_result(
        *ring_points(20e-6, 1e9, 2), a_point(bytes_=1 << 28, wrong=5),
        skipped=(Skipped(backend="torch", bytes_=1 << 30, reason="too long"),
                 Skipped(backend="horovod", bytes_=None, reason="cannot be imported")),
    )  # fmt: skip
    text = render_result(result, fit_links(a_result(*ring_points(20e-6, 1e9, 2))))
    assert "fit: latency 20.0 us, bandwidth 1 GB/s each way; off by 0 % at the median" in text
    assert "torch at 1G: too long" in text
    assert "horovod: cannot be imported" in text
    (row,) = [line.split() for line in text.splitlines() if line.split()[-2:-1] == ["5"]]
    assert row[0] == "256M"


def test_a_launch_that_reported_no_end_is_an_error(tmp_path):
    point = a_point().__class__
    events = encode_event("allreduce_point", bytes=4, repeats_s=[1e-6], wrong=0, n=2,
                          backend="torch", iterations=1, checked=1, device="cpu")  # fmt: skip
    (tmp_path / "events.jsonl").write_bytes(events)
    with pytest.raises(BenchError, match="not measured to its end, got 1 points"):
        read_allreduce(tmp_path)
    done = encode_event("allreduce_done", n=2, nodes=1, placement="1 node", environment={})
    (tmp_path / "events.jsonl").write_bytes(events + done)
    assert [type(each) for each in read_allreduce(tmp_path).points] == [point]
