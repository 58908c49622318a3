"""``hpctrain completion``: the shell's side of tab completion, which Click provides."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  eval "$(hpctrain completion bash)"           # this shell
  hpctrain completion bash >> ~/.bashrc        # every new one
  hpctrain completion fish > ~/.config/fish/completions/hpctrain.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes a shell complete hpctrain's commands and options."""
    from click.shell_completion import get_completion_class

    from hpctrain.cli import cli

    made_by = get_completion_class(shell)
    assert made_by is not None
    script = made_by(cli, {}, "hpctrain", "_HPCTRAIN_COMPLETE").source()
    if shell == "bash":
        # Where hpctrain offers nothing, what bash does without it: files.
        script = script.replace(
            "complete -o nosort", "complete -o bashdefault -o default -o nosort"
        )
    click.echo(script)
