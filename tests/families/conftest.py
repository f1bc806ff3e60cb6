"""Which families run: those that differ in kind, or all of them with ``--families``."""

from __future__ import annotations

import pytest

from tests.families.matrix import FAMILIES, REPRESENTATIVE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for each family."""
    if "family_name" in metafunc.fixturenames:
        names = list(FAMILIES) if metafunc.config.getoption("--families") else REPRESENTATIVE
        metafunc.parametrize("family_name", names, scope="module")
