"""Ready experiments: ``hpctrain run --config NAME`` takes them by name."""

from __future__ import annotations

from pathlib import Path

from hpctrain.errors import ConfigError, did_you_mean

_FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_recipe(name: str) -> Path:
    """Return the file that ``--config`` means: a path, or else a recipe's name.

    Raises:
        ConfigError: neither a file nor a recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    if name in recipe_names():
        return _FOLDER / f"{name}.toml"
    raise ConfigError(
        f"--config: no such file or recipe, got '{name}'; expected a TOML file or one of "
        f"{', '.join(recipe_names()) or 'no recipe'}.{did_you_mean(name, recipe_names())}"
    )
