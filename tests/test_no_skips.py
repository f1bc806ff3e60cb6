"""The option that makes hidden gaps fail: what is skipped, what for, and what is said last."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest

def test_runs():
    pass

@pytest.mark.skipif(True, reason="needs a GPU")
def test_gpu():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    raise ValueError
"""
BROWSER = """
@pytest.mark.skipif(True, reason="no browser")
def test_browser():
    pass
"""
FILE = 'import pytest\npytest.importorskip("no_such_package", reason="needs the package")\n'
INSIDE = '\ndef test_inside():\n    pytest.skip("not here")\n'


def session(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_some.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # Where these tests run, the option may be in force by the environment.
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "options", "code", "says"),
    [
        (TESTS + BROWSER, (), 0, ""),  # without the option as ever
        (TESTS, ("--no-skips-but=GPU",), 0, ""),
        (TESTS + BROWSER, ("--no-skips-but=GPU",), 1, "test_some.py::test_browser: no browser"),
        (TESTS + BROWSER, ("--no-skips-but=GPU", "--no-skips-but=browser"), 0, ""),
        (TESTS + INSIDE, ("--no-skips-but=GPU",), 1, "test_some.py::test_inside: not here"),
        (FILE, ("--no-skips-but=GPU",), 1, "test_some.py: needs the package"),
    ],
)
def test_only_named_skips_pass(
    tmp_path: Path, text: str, options: tuple[str, ...], code: int, says: str
) -> None:
    done = session(tmp_path, text, *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout
    assert ("may be" in done.stdout) == bool(says)
    # Counts stay where they are read: on the last line.
    assert re.search(r"(passed|skipped).* in [\d.]+s", done.stdout.strip().splitlines()[-1])


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    text = TESTS + BROWSER + "\ndef test_fails():\n    assert False\n"
    assert session(tmp_path, text, "--no-skips-but=GPU").returncode == 1


def test_ci_allows_gpu_tests_alone_and_reaches_every_folder_of_tests() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "--no-skips-but=GPU" in ci and "chromium" in ci
    # The option is known wherever the conftest of the root is.
    for folder in ("tests", "tests_vllm"):
        assert (ROOT / folder).is_dir()
    assert (ROOT / "conftest.py").is_file()
