"""Real child processes: what comes up, what does not, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affectlens.core import ArtefactError, DataError, ModelError
from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port, running
from affectlens.serving.contract import Launch

HEALTHY = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def do_POST(self):
        import os; os._exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
FAILING = """
print("(EngineCore pid=7) ValueError: There is not enough memory for the cache.")
print("RuntimeError: Engine core initialization failed. See root cause above.")
raise SystemExit(1)
"""


def start(script: str, port: int) -> Launch:
    return Launch((sys.executable, "-c", script, str(port)), dict(os.environ))


def server(port: int) -> Server:
    return Server(f"http://{HOST}:{port}", timeout=5)


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended but was not collected yet does not."""
    try:
        return (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 120
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def child_of(log: Path) -> int:
    return int(log.read_text().split("child ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")
def test_healthy_while_needed_and_gone_afterwards(tmp_path: Path) -> None:
    log, port = tmp_path / "logs" / "vllm.log", free_port()
    before = signal.getsignal(signal.SIGTERM)
    with running(start(HEALTHY, port), server(port), log) as there:
        assert there.ask("/health").status == 200
        child = child_of(log)
        assert alive(child)
    assert gone(child)
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(DataError):
        server(port).ask("/health")


def test_what_fails_says_why(tmp_path: Path) -> None:
    log, port = tmp_path / "vllm.log", free_port()
    with pytest.raises(ModelError) as caught, running(start(FAILING, port), server(port), log):
        pass
    assert "not enough memory for the cache. Its log is" in str(caught.value)
    assert str(log) in str(caught.value)


def test_what_never_answers(tmp_path: Path) -> None:
    port, started = free_port(), time.monotonic()
    sleeper = start("import time; time.sleep(600)", port)
    with (
        pytest.raises(ModelError, match="did not answer within 1 seconds"),
        running(sleeper, server(port), tmp_path / "log", patience=1),
    ):
        pass
    assert time.monotonic() - started < 20


def test_what_ends_while_it_is_needed(tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    with (
        pytest.raises(ModelError, match=r"ended while it was needed \(exit status 3\)"),
        running(start(HEALTHY, port), server(port), log) as there,
    ):
        there.ask("/anything", {})


def test_other_errors_pass(tmp_path: Path) -> None:
    port = free_port()
    with (
        pytest.raises(DataError, match="mine"),
        running(start(HEALTHY, port), server(port), tmp_path / "log"),
    ):
        raise DataError("mine")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtefactError),
        running(start(HEALTHY, 1), server(1), tmp_path / "file" / "log"),
    ):
        pass


_OWNER = """
import sys
from pathlib import Path
from affectlens.serving.checking import Server
from affectlens.serving.contract import Launch
from affectlens.serving.child_process import running
script, port, log = sys.argv[1:]
launch = Launch((sys.executable, "-c", script, port), dict(__import__("os").environ))
with running(launch, Server(f"http://127.0.0.1:{port}"), Path(log)):
    print("up", flush=True)
    import time; time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")
def test_a_terminated_owner_takes_it_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", _OWNER, HEALTHY, str(free_port()), str(log)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "up\n"
    child = child_of(log)
    owner.send_signal(signal.SIGTERM)
    assert owner.wait(30) == 128 + signal.SIGTERM
    assert gone(child)
    owner.stdout.close()
