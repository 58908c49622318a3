"""How much faster does a step compute in another precision?

    python benchmarks/precision.py --out benchmarks/results/precision.json
    python benchmarks/precision.py --layers 12 --seq-len 1024 --batch 16      on a GPU

Forward, backward and AdamW of one model, on one device, once in fp32 and once in the other in
every round, on the same batch and by the trainer's own code. The goal for bf16 on a CPU that has
avx512_bf16 is 1.5.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.config import parse_config
from hpctrain.cores import count_cores
from hpctrain.train.communicator import Communicator
from hpctrain.train.exchange import BucketExchange
from hpctrain.train.model import build_model, sum_token_losses
from hpctrain.train.optimizer import make_optimizer
from hpctrain.train.precision import Precision
from hpctrain.train.presets import ModelSize, resolve_model

FLAGS = ("avx512_bf16", "amx_bf16", "avx512f", "avx2")


def stepper(
    size: ModelSize, precision: str, batch: int, device: torch.device
) -> Callable[[], None]:
    """Return a function that trains one step and waits for it."""
    model = build_model(size, seed=1).to(device)
    exchange = BucketExchange(model, Communicator(), 25.0)
    optimizer = make_optimizer(exchange.pieces, parse_config("").optim)
    cast = Precision(precision, device)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(size.vocab_size, (batch, size.seq_len + 1), generator=generator)
    inputs, targets = tokens[:, :-1].to(device), tokens[:, 1:].to(device)

    def step() -> None:
        exchange.clear()
        with cast.autocast():
            loss = sum_token_losses(model(inputs), targets) / targets.numel()
        loss.backward()
        exchange.update(optimizer)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("bf16", "fp16"), default="bf16",
                        help="against fp32 (default: bf16)")  # fmt: skip
    parser.add_argument("--preset", default="small", help="the model's (default: small)")
    parser.add_argument("--layers", type=int, default=2, help="of them (default: 2)")
    parser.add_argument("--seq-len", type=int, default=256, help="tokens (default: 256)")
    parser.add_argument("--batch", type=int, default=2, help="sequences a step (default: 2)")
    parser.add_argument("--threads", type=int, default=count_cores(), help="on a CPU: all cores")
    parser.add_argument("--rounds", type=int, default=21, help="rounds (default: 21)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    warn_if_busy()
    torch.set_num_threads(asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    words = [f"model.preset={asked.preset}", f"model.num_layers={asked.layers}",
             f"model.seq_len={asked.seq_len}"]  # fmt: skip
    size = resolve_model(parse_config("", overrides=words).model)
    settings = {key: value for key, value in vars(asked).items() if key != "out"}
    record = {"what": "precision", **environment(("torch",), mpi=False), **settings}
    if device.type == "cuda":
        record["gpu"] = torch.cuda.get_device_name()
    else:
        flags = Path("/proc/cpuinfo").read_text().split()
        record["cpu_flags"] = [flag for flag in FLAGS if flag in flags]

    names = ("fp32", asked.precision)
    steps = {name: stepper(size, name, asked.batch, device) for name in names}
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(asked.rounds + 2):
        for name in names[:: -1 if number % 2 else 1]:
            start_s = time.perf_counter()
            steps[name]()
            if number >= 2:  # the first ones allocate
                values[name].append(time.perf_counter() - start_s)
    record["step_s"] = values
    print(f"{device}: {record.get('gpu') or ' '.join(record['cpu_flags'])}")
    print(table(values, " s"))
    print(row(f"fp32 / {asked.precision}", ratios(values, "fp32", asked.precision)))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
