"""The table of GPU peaks: names as drivers give them, plausible figures, a source each."""

import pytest

from hpctrain.gpu_peaks import GPU_PEAKS, find_peak, peak_flops
from hpctrain.train.flops import flops_per_token, utilization
from hpctrain.train.presets import ModelSize


@pytest.mark.parametrize(
    ("device_name", "name"),
    [
        ("Tesla V100-SXM2-16GB", "V100 SXM"),
        ("Tesla V100-SXM3-32GB", "V100 SXM"),
        ("Tesla V100-PCIE-32GB", "V100 PCIe"),
        ("Tesla V100S-PCIE-32GB", None),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", None),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", None),
        ("", None),
    ],
)
def test_names_of_drivers(device_name, name):
    peak = find_peak(device_name)
    assert (peak.name if peak else None) == name


def test_figures_are_dense_and_have_a_source():
    for peak in GPU_PEAKS:
        assert peak.source
        assert peak.as_of
        assert peak.fp32 < peak.fp16
        assert peak.bf16 in (None, peak.fp16)
        assert peak.tf32 is None or peak.tf32 == pytest.approx(peak.fp16 / 2, rel=1e-2)
    assert [peak.name for peak in GPU_PEAKS if peak.disputed] == ["A10G", "B200"]


@pytest.mark.parametrize(
    ("device_name", "precision", "tflops"),
    [
        ("NVIDIA H200", "tf32", 494.5),
        ("NVIDIA H200", "apex-O2", 989),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA L4", "tf32", 60),
        ("NVIDIA L4", "fp8", None),
        ("unheard of", "fp32", None),
    ],
)
def test_peak_by_precision(device_name, precision, tflops):
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert peak_flops(device_name, precision) == expected


def test_gpt2_has_the_flops_of_the_formula():
    shape = {"d_model": 768, "num_layers": 12, "num_heads": 12, "vocab_size": 50257}
    gpt2 = ModelSize(**shape, seq_len=1024, position="learned")
    embedding, layers = 50257 * 768, 12 * (12 * 768**2 + 2 * 768) + 768
    assert flops_per_token(gpt2) == 6 * (embedding + layers) + 12 * 12 * 768 * 1024


def test_utilization_is_unknown_without_a_peak():
    assert utilization(1e5, 1e9, 1e15, 2) == pytest.approx(0.05)
    assert utilization(1e5, 1e9, None, 2) is None
    assert utilization(1e5, None, 1e15, 2) is None
