"""The variables that Terraform gets: none of the user's shell that would lead it elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hpctrain.launch.find_mpi import cache_folder

# Each would make Terraform look at another state than the cluster's, and find nothing there.
_LEADS_ELSEWHERE = ("TF_DATA_DIR", "TF_WORKSPACE")


def own_environ(given: Mapping[str, str], shell: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables on top of the shell's; Terraform takes an empty one for none.

    >>> own_environ({}, {"TF_CLI_ARGS_plan": "-destroy", "HOME": "/h"})["TF_CLI_ARGS_plan"]
    ''
    """
    extra_words = [name for name in (*shell, *given) if name.startswith("TF_CLI_ARGS")]
    emptied = dict.fromkeys((*_LEADS_ELSEWHERE, *extra_words), "")
    return {"TF_IN_AUTOMATION": "1", **given, **emptied, "TF_INPUT": "0"}


def terraform_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables for Terraform: a provider is downloaded once for all clusters.

    The cache may be used before a lock file knows the provider, because ours are made anew.
    """
    if "TF_PLUGIN_CACHE_DIR" in environ:
        return {}
    cache = cache_folder(environ) / "terraform-plugins"
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "TF_PLUGIN_CACHE_DIR": str(cache),
        "TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE": "1",
    }
