"""What a run is told: defaults < TOML file < ``--set key=value``, typed and frozen."""

from hpctrain.config.load import (
    all_keys,
    as_tables,
    choices_of,
    config_from_tables,
    dump_toml,
    inspect_config,
    load_config,
    parse_config,
)
from hpctrain.config.schema import Config

__all__ = [
    "Config",
    "all_keys",
    "as_tables",
    "choices_of",
    "config_from_tables",
    "dump_toml",
    "inspect_config",
    "load_config",
    "parse_config",
]
