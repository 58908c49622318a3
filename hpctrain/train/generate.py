"""``python -m hpctrain.train.generate``: text from a checkpoint's model, one token at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpctrain.config import config_from_tables
from hpctrain.errors import EXIT_OK, CheckpointError, HpctrainError, raise_all
from hpctrain.train.checkpoint_folder import find_checkpoint, find_damage, read_index
from hpctrain.train.model import build_model
from hpctrain.train.presets import resolve_model
from hpctrain.train.state import model_pieces, read_pieces
from hpctrain.train.tokenizer import open_tokenizer


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prompt and what the model makes of it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpctrain.train.generate")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    try:
        model, tokenizer_name = load_model(asked.checkpoint)
        tokenizer = open_tokenizer(tokenizer_name)
        prompt = tokenizer.encode(asked.prompt.encode()).astype(np.int64)
        start = torch.from_numpy(np.concatenate([[tokenizer.separator], prompt]))
        sys.stdout.write(asked.prompt)
        for token in generate(model, start, asked.tokens, asked.temperature, asked.seed):
            if token == tokenizer.separator:
                break  # the end of the document
            sys.stdout.buffer.write(_decode(tokenizer_name, token))
            sys.stdout.flush()
        print(flush=True)
    except HpctrainError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def load_model(checkpoint: Path) -> tuple[nn.Module, str]:
    """Return a checkpoint's model, ready to be asked, and the name of its tokenizer.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    folder = find_checkpoint(checkpoint)
    index = read_index(folder)
    raise_all(CheckpointError, [f"{problem}." for problem in find_damage(folder, index)])
    config = config_from_tables(index["config"])
    model = build_model(resolve_model(config.model), config.train.seed)
    read_pieces(folder, index, model_pieces(model))
    return model.eval(), index["tokenizer"]


def generate(
    model: nn.Module, start: Tensor, tokens: int, temperature: float, seed: int
) -> Iterator[int]:
    """Yield `tokens` tokens that go on from `start`, (tokens,) int64.

    Args:
        temperature: scores are divided by it; 0 takes the likeliest token each time.
        seed: the same seed gives the same tokens.
    """
    dice = torch.Generator().manual_seed(seed)
    text = start
    seq_len = model.size.seq_len
    for _ in range(tokens):
        with torch.inference_mode():
            scores = model(text[-seq_len:].unsqueeze(0))[0, -1]
        if temperature == 0:
            token = scores.argmax().view(1)
        else:
            token = torch.multinomial(torch.softmax(scores / temperature, 0), 1, generator=dice)
        text = torch.cat([text, token])
        yield int(token)


def _decode(tokenizer: str, token: int) -> bytes:
    if tokenizer != "bytes":
        raise CheckpointError(
            f"{tokenizer}: its tokens cannot be turned into text here, expected 'bytes'."
        )
    return bytes([token])


if __name__ == "__main__":
    sys.exit(main())
