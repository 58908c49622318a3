"""Which Terraform is here?"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping

from hpctrain.errors import ClusterError
from hpctrain.executor import Command, LocalExecutor

OLDEST = (1, 9)  # the modules' required_version
ANSWER_TIMEOUT_S = 30.0


def find_terraform(environ: Mapping[str, str]) -> str:
    """Return the version of the Terraform on PATH.

    Raises:
        ClusterError: there is none, or it is too old.
    """
    program = shutil.which("terraform", path=environ.get("PATH", os.defpath))
    wanted = ".".join(map(str, OLDEST))
    advice = "Install it: https://developer.hashicorp.com/terraform/install"
    if program is None:
        raise ClusterError(f"terraform: not on PATH; expected {wanted} or newer. {advice}")
    done = LocalExecutor().run(Command((program, "version", "-json")), timeout_s=ANSWER_TIMEOUT_S)
    found = re.search(r'"terraform_version":\s*"((\d+)\.(\d+)[^"]*)"', done.stdout)
    if found is None:
        raise ClusterError(f"{program}: does not say its version: {done.last_words}. {advice}")
    if (int(found[2]), int(found[3])) < OLDEST:
        raise ClusterError(f"{program}: got {found[1]}; expected {wanted} or newer. {advice}")
    return found[1]
