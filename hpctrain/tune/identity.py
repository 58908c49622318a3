"""Is a work directory's tuning the one that is asked for now? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.situation import flat_settings
from hpctrain.tune.store import SCHEMA


def identity_of(
    asked: TuneAsked,
    base: Mapping[str, Mapping[str, Any]],
    machine: Mapping[str, str | None],
    commit: str,
) -> dict[str, Any]:
    """Return what makes the measurements of two processes comparable, as JSON-ready values.

    Args:
        machine: from :func:`hpctrain.tune.machine.comparable_machine`.
    """
    return {
        "schema": SCHEMA,
        "asked": {
            "host_list": asked.host_list,
            "cluster": asked.cluster,
            "only": list(asked.only),
            "seed": asked.seed,
            "oversubscribe": asked.oversubscribe,
            "allow_lossy": asked.allow_lossy,
        },
        "settings": flat_settings(base),
        "machine": dict(machine),
        "commit": commit,
    }


def as_before(asked: TuneAsked, saved: Mapping[str, Any]) -> TuneAsked:
    """Take over what an earlier process was asked, where the command line names no job."""
    return replace(
        asked,
        host_list=saved["host_list"],
        cluster=saved["cluster"],
        only=tuple(saved["only"]),
        seed=saved["seed"],
        oversubscribe=saved["oversubscribe"],
        allow_lossy=saved["allow_lossy"] or asked.allow_lossy,
    )


def differences(
    folder: Path, earlier: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> list[str]:
    """Return where this is not the tuning that the directory holds."""
    if earlier is None:
        return []
    errors = []
    for part, sign in (("settings", ""), ("asked", "--")):
        before, now = earlier[part], identity[part]
        for key in sorted({*before, *now} - {"allow_lossy"}):
            if before.get(key) != now.get(key):
                errors.append(
                    f"{folder}: holds measurements of another tuning, {sign}{key} is "
                    f"{now.get(key)!r} here; expected {before.get(key)!r}. Go on with that one "
                    f"by: hpctrain tune --dir {folder}, or give another --dir."
                )
    before, now = earlier["machine"], identity["machine"]
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        # A host that was never asked may have become known since, and be the same.
        is_unknown = key in before and key in now and None in (one, other)
        if one != other and not is_unknown:
            errors.append(
                f"{folder}: was measured on another machine or with other versions, {key} is "
                f"{other!r} here; expected {one!r}. Times of both say nothing of each other: "
                "give another --dir."
            )
    return errors


def commit_warning(
    earlier: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return a warning where the code has changed since the tuning began."""
    if earlier is None or earlier["commit"] == identity["commit"]:
        return ()
    return (
        f"the tuning began at commit {earlier['commit']} and goes on at {identity['commit']}: see "
        "that they are as fast",
    )
