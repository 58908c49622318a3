"""`hpctrain data`: turn text into token shards, and look at them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hpctrain.train.shards import DataIndex

PROGRESS_AFTER_S = 2.0


@click.group(
    name="data",
    epilog="""\b
Examples:
  hpctrain data prepare --source stdlib --out data/stdlib-bytes
  hpctrain data prepare book.txt notes/ --out data/mine
  hpctrain data info data/mine --verify
""",
)
def command() -> None:
    """Prepare and inspect training data."""


@command.command(
    epilog="""\b
Examples:
  hpctrain data prepare --source stdlib --out data/stdlib-bytes
  hpctrain data prepare book.txt notes/ --validation-fraction 0.05 --out data/mine
  hpctrain data prepare web.jsonl --tokenizer bpe --vocab-size 32000 --out data/web
  hpctrain data prepare web.jsonl --json-field body --tokenizer gpt2/tokenizer.json --out data/web
""",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="stdlib|FILE",
    help="stdlib (the running Python's own library source), text, *.jsonl, a folder of them.",
)
@click.argument("files", nargs=-1, metavar="[FILES]...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--tokenizer",
    default="bytes",
    show_default=True,
    metavar="bytes|bpe|FILE",
    help="bytes, bpe (learned from the text), or a tokenizer.json of Hugging Face's tokenizers.",
)
@click.option(
    "--vocab-size",
    type=int,
    help="Tokens that bpe learns; a small text gives fewer.  [default: 50257, GPT-2's]",
)
@click.option("--end-token", help="Name of FILE's token that ends a document, where unusual.")
@click.option("--json-field", help="Field of a *.jsonl line that holds the text.  [default: text]")
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 0.5),
    default=0.01,
    show_default=True,
    help="Part of the bytes, in whole documents, that is kept for validation.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Chooses the documents that validate."
)
@click.option(
    "--shard-mb",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Largest shard (MiB).",
)
@click.option("--force", is_flag=True, help="Make it again, also over data of another request.")
def prepare(
    sources: tuple[str, ...],
    files: tuple[str, ...],
    out: Path,
    tokenizer: str,
    vocab_size: int | None,
    end_token: str | None,
    json_field: str | None,
    validation_fraction: float,
    seed: int,
    shard_mb: int,
    force: bool,
) -> None:
    """Turn text FILES into token shards with an index, checksums and a validation part.

    The folder is complete or absent. Asked for what is there already, it says so at once.
    """
    if not sources + files:
        raise click.UsageError("no text given; name FILES or give --source stdlib.")

    from hpctrain.train.prepare import PrepareRequest, prepare_data

    request = PrepareRequest(
        sources=sources + files,
        out=out,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        end_token=end_token,
        json_field=json_field,
        validation_fraction=validation_fraction,
        seed=seed,
        shard_bytes=shard_mb * 1024 * 1024,
        force=force,
    )
    bar = _LateBar()
    try:
        prepared = prepare_data(request, bar.update)
    finally:
        bar.close()
    click.echo(f"{'Made' if prepared.made else 'Already there:'} {click.format_filename(out)}")
    _print_splits(prepared.index)


@command.command(
    epilog="""\b
Examples:
  hpctrain data info data/stdlib-bytes
  hpctrain data info data/stdlib-bytes --verify
""",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read every byte and compare its checksum.")
def info(folder: Path, verify: bool) -> None:
    """Show what a prepared FOLDER holds, and whether all of it is there."""
    from hpctrain.errors import DataError, raise_all
    from hpctrain.train.shards import find_damage, read_index

    index = read_index(folder)
    click.echo(click.format_filename(folder))
    _print_splits(index)
    source, created = index.source, index.created
    described = ", ".join(index.request.get("sources", ())) or "unknown"
    click.echo(
        f"  source      {described}: {source.get('files', '?')} file(s), "
        f"{_megabytes(source.get('bytes'))}"
    )
    click.echo(f"  created     {created.get('at', '?')} by {created.get('by', '?')}")
    raise_all(DataError, find_damage(folder, index, checksums=verify))
    click.echo(f"  intact      yes ({'checksums' if verify else 'sizes; --verify for checksums'})")


def _print_splits(index: DataIndex) -> None:
    click.echo(
        f"  tokenizer   {index.tokenizer}: {index.vocab_size} tokens, {index.dtype}, "
        f"{index.separator} ends a document"
    )
    for name, split in index.splits.items():
        size_bytes = sum(shard.size_bytes for shard in split.shards)
        shards = f"{len(split.shards)} shard{'' if len(split.shards) == 1 else 's'}"
        click.echo(
            f"  {name:<11} {split.tokens:,} tokens, {split.documents:,} documents, "
            f"{shards}, {_megabytes(size_bytes)}"
        )


def _megabytes(size_bytes: int | None) -> str:
    return "unknown size" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"


class _LateBar:
    """A progress bar that appears only where there is something to wait for."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._drawn_s = 0.0
        self._bar = None

    def update(self, done_bytes: int, total_bytes: int) -> None:
        now_s = time.monotonic()
        if now_s - self._start_s < PROGRESS_AFTER_S or now_s - self._drawn_s < 0.1:
            return
        self._drawn_s = now_s
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("Preparing", total=total_bytes)
            self._bar.start()
        self._bar.update(self._task, completed=done_bytes)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
