"""Terraform for tests: where its providers come from, and copies of the modules to run it in."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TERRAFORM = ROOT / "terraform"
STANDIN = ROOT / "tests" / "google_standin"
MIRROR_VARIABLE = "HPCTRAIN_TF_MIRROR"
REGISTRY = "registry.terraform.io"
STANDIN_VERSION = "8.7.0"  # whose schema the stand-in carries


def find_mirror(provider: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder that mirrors a provider such as ``hashicorp/aws``, None for none here.

    It is looked for where HPCTRAIN_TF_MIRROR says, where Terraform itself looks by default, and
    one level under /opt and /usr/share.
    """
    home = Path(environ.get("HOME", "/"))
    candidates = [
        *([Path(environ[MIRROR_VARIABLE])] if environ.get(MIRROR_VARIABLE) else []),
        home / ".terraform.d" / "plugins",
        home / ".local/share/terraform/plugins",
        Path("/usr/local/share/terraform/plugins"),
        Path("/usr/share/terraform/plugins"),
        *sorted(Path("/opt").glob("*")),
        *sorted(Path("/usr/share").glob("*")),
    ]
    return next((path for path in candidates if (path / REGISTRY / provider).is_dir()), None)


def why_no_provider(provider: str) -> str:
    """Return why a provider cannot be had here, "" where it can: from a mirror or by download."""
    if find_mirror(provider):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        block = f'terraform {{\n required_providers {{ p = {{ source = "{provider}" }} }}\n}}\n'
        (Path(folder) / "main.tf").write_text(block)
        config = Path(folder) / "terraformrc"
        config.touch()
        done = terraform(Path(folder), "init", "-no-color", config=config, check=False)
    return "" if done.returncode == 0 else f"no mirror, and no download: {done.stdout[-300:]}"


def write_cli_config(folder: Path) -> Path:
    """Write the configuration that every Terraform of a test gets; return its path.

    AWS's provider comes from a mirror where there is one, else from the registry. Google's is
    the stand-in of these tests: its real one is in no mirror.
    """
    mirror = find_mirror("hashicorp/aws")
    methods = [_mirror(_install_standin(folder / "standin"), "hashicorp/google")]
    methods += [_mirror(mirror, "hashicorp/aws")] if mirror else []
    excluded = ["hashicorp/google", *(["hashicorp/aws"] if mirror else [])]
    names = ", ".join(f'"{REGISTRY}/{name}"' for name in excluded)
    methods.append(f"  direct {{\n    exclude = [{names}]\n  }}")
    path = folder / "terraformrc"
    path.write_text("provider_installation {\n" + "\n".join(methods) + "\n}\n")
    return path


def _mirror(folder: Path, provider: str) -> str:
    return (
        f'  filesystem_mirror {{\n    path    = "{folder}"\n'
        f'    include = ["{REGISTRY}/{provider}"]\n  }}'
    )


def _install_standin(mirror: Path) -> Path:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = mirror / REGISTRY / "hashicorp/google" / STANDIN_VERSION / f"linux_{machine}"
    folder.mkdir(parents=True)
    program = folder / f"terraform-provider-google_v{STANDIN_VERSION}"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN}/provider.py" "$@"\n')
    program.chmod(0o755)
    return mirror


def copy_terraform(folder: Path) -> Path:
    """Return a copy of terraform/, so that nothing of a run stays in the repository."""
    target = folder / "terraform"
    shutil.copytree(TERRAFORM, target, ignore=shutil.ignore_patterns(".terraform*"))
    return target


def terraform(
    folder: Path, *arguments: str, config: Path, check: bool = True, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run terraform in a folder; its standard output and error are one."""
    environ = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1"}
    done = subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout
    return done
