"""``hpctrain export``: a checkpoint's model for other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  hpctrain export runs/demo --to safetensors --out demo.safetensors
  hpctrain export runs/big/checkpoints/step-00010000 --to safetensors --out big.safetensors
""",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--to", "kind", type=click.Choice(["safetensors"]), default="safetensors", show_default=True,
    help="The format to write.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to make.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def command(checkpoint: Path, kind: str, out: Path, force: bool) -> None:
    """Write the model of CHECKPOINT, or of a run's newest one, as one file.

    The optimizer's state is left out. Every checksum is compared first.
    """
    from hpctrain.train.export import export_model

    done = export_model(checkpoint, out, force=force)
    click.echo(
        f"{click.format_filename(out)}: {done.tensors} tensors, {done.size_bytes:,} bytes, "
        f"step {done.step} of {done.checkpoint}"
    )
