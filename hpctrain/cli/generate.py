"""``hpctrain generate``: let a checkpoint's model write."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  hpctrain generate runs/demo --prompt "def main("
  hpctrain generate runs/demo/checkpoints/step-00000400 --prompt "import " --temperature 0
""",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompt", required=True, help="Text to go on from.")
@click.option(
    "--tokens", type=click.IntRange(min=1), default=200, show_default=True,
    help="Longest continuation.",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True,
    help="How freely it chooses; 0 takes the likeliest token each time.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same text.")
def command(checkpoint: Path, prompt: str, tokens: int, temperature: float, seed: int) -> int:
    """Print PROMPT and what the model of CHECKPOINT, or of a run's newest one, goes on with."""
    from hpctrain.executor import Command, LocalExecutor

    # A process of its own: torch is imported in hpctrain.train alone.
    argv = (
        sys.executable, "-m", "hpctrain.train.generate", str(checkpoint), f"--prompt={prompt}",
        f"--tokens={tokens}", f"--temperature={temperature}", f"--seed={seed}",
    )  # fmt: skip
    out, err = sys.stdout.fileno(), sys.stderr.fileno()
    return LocalExecutor().start(Command(argv), stdout=out, stderr=err, new_session=False).wait()
