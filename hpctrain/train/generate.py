"""``python -m hpctrain.train.generate``: text from a checkpoint's model, one token at a time."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpctrain.config import config_from_tables
from hpctrain.errors import EXIT_OK, CheckpointError, HpctrainError, raise_all
from hpctrain.train.checkpoint_folder import find_checkpoint, find_damage, read_index
from hpctrain.train.model import build_model
from hpctrain.train.own_model import build_own_model
from hpctrain.train.presets import resolve_model
from hpctrain.train.state import model_pieces, read_pieces
from hpctrain.train.tokenizer import (
    TOKENIZER_FILE_NAME,
    SubwordTokenizer,
    Tokenizer,
    open_tokenizer,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prompt and what the model makes of it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpctrain.train.generate")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for model.factory, as when training
    try:
        model, seq_len, tokenizer = load_model(asked.checkpoint)
        prompt = tokenizer.encode(asked.prompt.encode()).astype(np.int64)
        start = torch.from_numpy(np.concatenate([[tokenizer.separator], prompt]))
        made = generate(model, start, seq_len, asked.tokens, asked.temperature, asked.seed)
        sys.stdout.write(asked.prompt)
        sys.stdout.flush()
        for text in spell(tokenizer, prompt.tolist(), made):
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        print(flush=True)
    except HpctrainError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def load_model(checkpoint: Path) -> tuple[nn.Module, int, Tokenizer]:
    """Return a checkpoint's model, ready to be asked, its `seq_len`, and its tokenizer.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ConfigError: `model.factory` cannot be loaded here.
        BuildError: the tokenizer's library is not installed.
    """
    folder = find_checkpoint(checkpoint)
    index = read_index(folder)
    raise_all(CheckpointError, [f"{problem}." for problem in find_damage(folder, index)])
    config = config_from_tables(index["config"])
    size = resolve_model(config.model)
    if config.model.factory is not None:
        model = build_own_model(config.model.factory, size, config.train.seed)
    else:
        model = build_model(size, config.train.seed)
    read_pieces(folder, index, model_pieces(model))
    return model.eval(), size.seq_len, _open_tokenizer(folder, index)


def generate(
    model: nn.Module, start: Tensor, seq_len: int, tokens: int, temperature: float, seed: int
) -> Iterator[int]:
    """Yield `tokens` tokens that go on from `start`, (tokens,) int64.

    Args:
        seq_len: the model sees as many of the last tokens.
        temperature: scores are divided by it; 0 takes the likeliest token each time.
        seed: the same seed gives the same tokens.
    """
    dice = torch.Generator().manual_seed(seed)
    text = start
    for _ in range(tokens):
        with torch.inference_mode():
            scores = model(text[-seq_len:].unsqueeze(0))[0, -1]
        if temperature == 0:
            token = scores.argmax().view(1)
        else:
            token = torch.multinomial(torch.softmax(scores / temperature, 0), 1, generator=dice)
        text = torch.cat([text, token])
        yield int(token)


def spell(tokenizer: Tokenizer, prompt: list[int], tokens: Iterable[int]) -> Iterator[bytes]:
    """Yield the text of `tokens`, which follow `prompt`, until one ends the document.

    What a token means may depend on those before it, and a character may take several: it is
    held back until it is whole.
    """
    text, told = list(prompt), len(tokenizer.decode(prompt))
    unfinished = "\N{REPLACEMENT CHARACTER}".encode()
    for token in tokens:
        if token == tokenizer.separator:
            break
        text.append(token)
        decoded = tokenizer.decode(text)
        if not decoded.endswith(unfinished):
            yield decoded[told:]
            told = len(decoded)
    yield tokenizer.decode(text)[told:]


def _open_tokenizer(folder: Path, index: Mapping[str, Any]) -> Tokenizer:
    if TOKENIZER_FILE_NAME not in index["files"]:
        factory = index["config"].get("data", {}).get("factory")
        if factory and index["tokenizer"] == factory:
            raise CheckpointError(
                f"{folder}: its tokens come from data.factory = {factory!r}, which does not say "
                "what spells them; expected an attribute `tokenizer` of what it returns, such as "
                "'bytes'."
            )
        return open_tokenizer(index["tokenizer"])
    content = (folder / TOKENIZER_FILE_NAME).read_bytes()
    return SubwordTokenizer(index["tokenizer"], content, index["end_token"])


if __name__ == "__main__":
    sys.exit(main())
