"""A hub on this machine, as far as downloads go: the resolve and tree paths of the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def commit(repo: Path) -> str:
    """Another one whenever a file changes."""
    files = [p for p in sorted(repo.rglob("*")) if p.is_file()]
    return hashlib.sha1(b"".join(p.read_bytes() for p in files)).hexdigest()


@contextmanager
def hub(root: Path, asked: list[str] | None = None) -> Generator[str]:
    """Serve the repositories ``root/owner/repo`` and yield the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if asked is not None:
                asked.append(path)
            parts = path.split("/")
            if parts[0] == "api":
                self._listing("/".join(parts[2:4]))
                return
            repo = root / parts[0] / parts[1]
            file = repo.joinpath(*parts[4:])
            if not repo.is_dir():
                self._missing("RepoNotFound")
            elif parts[3] not in ("main", commit(repo)):
                self._missing("RevisionNotFound")
            elif not file.is_file():
                self._missing("EntryNotFound")
            else:
                content = file.read_bytes()
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit(repo))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

        def _listing(self, name: str) -> None:
            repo = root / name
            if not repo.is_dir():
                self._missing("RepoNotFound")
                return
            files = [str(p.relative_to(repo)) for p in sorted(repo.rglob("*")) if p.is_file()]
            if "/tree/" in self.path:
                answer: object = [{"type": "file", "path": f, "size": 1, "oid": "0"} for f in files]
            else:
                siblings = [{"rfilename": f} for f in files]
                answer = {"id": name, "modelId": name, "sha": commit(repo), "siblings": siblings}
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
