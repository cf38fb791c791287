"""embedding-atlas (github.com/apple/embedding-atlas) over one table: its page, and a server for this machine alone.

Its own server is not used: the page alone does the work (DuckDB in the browser), and this one forbids it every
address but itself, so that no text of a data set can make it load anything.
"""

from __future__ import annotations

import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from embodied_midtrain.artifacts import StageError, atomic_path
from embodied_midtrain.extras import require

DATA = "data"
TABLE = f"{DATA}/dataset.parquet"
ABOUT = f"{DATA}/metadata.json"
HOST = "127.0.0.1"
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:"
)
"""The page compiles SQL and charts in the browser ('unsafe-eval'), from nothing but its own files."""


def page_files() -> Path:
    """The folder of the page in the installed package.

    Raises:
        StageError: where it is not installed, or holds no page.
    """
    module = require("embedding_atlas", "explore")
    folder = Path(str(module.__file__)).parent / "static"
    if not (folder / "index.html").is_file():
        raise StageError(f"{folder} holds no page; install embedding-atlas 0.22 again")
    return folder


def about(*, by: str) -> dict[str, Any]:
    """What the page is told of the table: which column is what, by which one points are coloured."""
    columns = {"x": "x", "y": "y", "text": "text", "image": "picture"}
    return {
        "isStatic": True,
        "database": {"type": "wasm", "load": True},
        "props": {
            "data": {"id": "row", "projection": {"x": "x", "y": "y"}, "text": "text", "image": "picture"},
            "defaultChartsConfig": {
                "embedding": {"data": {**columns, "category": by}},
                "exclude": ["row", "id", "picture"],
            },
        },
    }


def write_static(out: Path, prepared: Path) -> None:
    """Page and data together in the new folder `out`, for any web server.

    Raises:
        StageError: where `out` is there already.
    """
    if out.exists():
        raise StageError(f"{out} is there already; give a new folder.")
    with atomic_path(out) as folder:
        shutil.copytree(page_files(), folder)
        shutil.copytree(prepared / DATA, folder / DATA)


class _Handler(SimpleHTTPRequestHandler):
    """The page's files from the package, the data from the prepared folder."""

    extensions_map = {  # noqa: RUF012 (as in the class above it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".parquet": "application/octet-stream",
    }

    def __init__(self, *args: Any, prepared: Path, **options: Any) -> None:
        self.prepared = prepared
        super().__init__(*args, **options)

    def translate_path(self, path: str) -> str:
        name = unquote(urlsplit(path).path).lstrip("/")
        # Two files and no more: what else lies in the folder is nobody's business.
        return str(self.prepared / name) if name in (TABLE, ABOUT) else super().translate_path(path)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        # A name of another's that leads here (DNS rebinding) is turned away.
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self.send_error(403)
            return False
        return True

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def make_server(prepared: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server bound to this machine alone; port 0 takes a free one.

    Raises:
        StageError: where the port is taken.
    """
    handler = partial(_Handler, directory=str(page_files()), prepared=prepared)
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise StageError(f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for any") from error
