"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest
import tiers

import hpctrain

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hpctrain.__path__, "hpctrain.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    if name.startswith("hpctrain.train.") or ".worker" in name:
        tiers.require("torch")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name}"
