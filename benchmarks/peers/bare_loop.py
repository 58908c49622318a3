"""Training on one device with nothing around it: no launcher, exchange, events or checkpoints."""

import contextlib
import json
import os
import time

import numpy as np
import torch
from common import CLIP_NORM, make_optimizer, mean_loss

from hpctrain.train.model import build_model
from hpctrain.train.presets import ModelSize

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    asked = json.loads(os.environ["PEER_SETTINGS"])
    device, size = torch.device(asked["device"]), ModelSize(**asked["size"])
    if device.type == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    else:
        torch.set_float32_matmul_precision("high" if asked["precision"] == "tf32" else "highest")
    model = build_model(size, seed=1234).to(device)
    optimizer = make_optimizer(model)
    compiled = torch.compile(model) if asked["compile"] else model
    cast = contextlib.nullcontext()
    if asked["precision"] in AUTOCAST:
        cast = torch.autocast(device.type, dtype=AUTOCAST[asked["precision"]])
    tokens = np.memmap(os.environ["PEER_TOKENS"], dtype=asked["dtype"], mode="r")
    generator = np.random.default_rng(0)

    for step in range(asked["steps"]):
        if step == asked["settled_after"]:
            wait_for(device)
            started_s = time.perf_counter()
        starts = generator.integers(0, len(tokens) - size.seq_len - 1, asked["batch"])
        rows = np.stack([tokens[start : start + size.seq_len + 1] for start in starts])
        both = torch.from_numpy(rows.astype(np.int64))
        if device.type == "cuda":
            both = both.pin_memory().to(device, non_blocking=True)
        with cast:
            loss = mean_loss(compiled(both[:, :-1]), both[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
    wait_for(device)
    timed = asked["steps"] - asked["settled_after"]
    print(json.dumps({"step_s": (time.perf_counter() - started_s) / timed}))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
