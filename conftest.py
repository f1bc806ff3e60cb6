"""For every folder of tests: skipped tests can be made a failure, so that no gap stays hidden."""

from __future__ import annotations

from typing import Any

import pytest

OPTION = "--no-skips-but"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        OPTION,
        action="append",
        metavar="WORD",
        help="fail if a test is skipped, unless the reason has this word (may be given repeatedly)",
    )
    parser.addoption("--families", action="store_true", help="try all families of models")


def pytest_configure(config: pytest.Config) -> None:
    """Watch skips if told to."""
    words = config.getoption(OPTION)
    if words is not None and not hasattr(config, "workerinput"):  # xdist: the main process counts
        config.pluginmanager.register(NoSkips(words), "no-skips")


class NoSkips:
    """Fails a session in which a test, or a whole file, was skipped for no good reason.

    Args:
        words: What good reasons have in them.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test; one that is expected to fail was run."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that skips itself."""
        if report.skipped:
            self._note(report)

    def _note(self, report: Any) -> None:
        # (file, line, "Skipped: why"), or a text.
        reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(word in reason for word in self.words):
            self.skipped.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail, unless something worse has happened."""
        if self.skipped and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which, before the closing line."""
        if not self.skipped:
            return
        allowed = " or ".join(self.words)
        terminalreporter.section(f"skipped, but only {allowed} may be", red=True, bold=True)
        for line in self.skipped:
            terminalreporter.write_line(line)
