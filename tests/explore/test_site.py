"""The server, and the page in a real browser: it loads, shows the points, and asks nobody else for anything."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.explore.site import make_server, page_files, write_static

pytest.importorskip(
    "embedding_atlas", reason="embedding-atlas is not installed: pip install 'embodied-midtrain[explore]'"
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

BROWSERS_OWN = (".google.com", ".googleapis.com", ".gstatic.com", ".gvt1.com")
"""Whom Chromium itself calls on its start; nothing of the page's is there."""


@pytest.fixture
def address(prepared: Artifact) -> Iterator[str]:
    server = make_server(prepared.path)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_only_the_page_and_its_data_are_served(address: str, prepared: Artifact) -> None:
    with urllib.request.urlopen(f"{address}/data/dataset.parquet") as answer:
        assert answer.read() == prepared.file("data/dataset.parquet").read_bytes()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert status(f"{address}/") == status(f"{address}/data/metadata.json") == 200
    for path in ("manifest.json", "data/../manifest.json", "%2e%2e/%2e%2e/manifest.json", "data/%2e%2e/manifest.json"):
        assert status(f"{address}/{path}") == 404
    assert status(f"{address}/", Host="elsewhere.example:80") == 403
    with pytest.raises(StageError, match="give another --port"):
        make_server(prepared.path, int(address.rpartition(":")[2]))


def test_a_static_copy(prepared: Artifact, tmp_path: Path) -> None:
    write_static(tmp_path / "site", prepared.path)
    assert (tmp_path / "site" / "index.html").read_bytes() == (page_files() / "index.html").read_bytes()
    assert json.loads((tmp_path / "site/data/metadata.json").read_text())["database"] == {"type": "wasm", "load": True}
    with pytest.raises(StageError, match="is there already"):
        write_static(tmp_path / "site", prepared.path)


class Recorder(BaseHTTPRequestHandler):
    """A proxy that lets nothing through and remembers what was asked of it."""

    asked: list[str]

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.raw_requestline:
            self.asked.append(self.raw_requestline.decode("latin-1").strip())
        self.close_connection = True


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver")
def test_the_map_in_a_browser(address: str) -> None:
    pytest.importorskip("selenium", reason="selenium is not installed: pip install 'embodied-midtrain[dev]'")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    asked: list[str] = []
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (Recorder,), {"asked": asked}))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--enable-unsafe-swiftshader",
        # Whatever is not on this machine goes there: the page, its workers and WebAssembly alike.
        f"--proxy-server=http://127.0.0.1:{proxy.server_port}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_window_size(1400, 900)
        driver.get("http://192.0.2.1/is-the-proxy-there")
        assert any("is-the-proxy-there" in line for line in asked), "else this test would see nothing"
        asked.clear()
        driver.get(f"{address}/")
        body = driver.find_element(By.TAG_NAME, "body")
        WebDriverWait(driver, 60).until(lambda _: "60 / 60 points" in " ".join(body.text.split()))
        # What the columns hold, counted by the page's own database.
        wanted = {"robot": "18", "selected": "20", "not selected": "22"}
        WebDriverWait(driver, 30).until(lambda _: counted(body.text) == wanted)
        WebDriverWait(driver, 30).until(lambda _: robots(driver.get_screenshot_as_png()).sum() > 100)
        WebDriverWait(driver, 30).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "img[src^='data:image/jpeg']"))
        time.sleep(2)
        assert driver.title == "Embedding Atlas"
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert f"{address}/data/metadata.json" in urls
        outside = [url for url in urls if not url.startswith((address, "data:", "blob:", "http://192.0.2.1/is-the"))]
        assert [url for url in outside if not url.startswith("chrome")] == []
        assert [line for line in asked if not any(host in line for host in BROWSERS_OWN)] == []
    finally:
        driver.quit()
        proxy.shutdown()


def counted(text: str) -> dict[str, str]:
    """The legend, which comes before the rows: a name in one line, its count in the next."""
    names = ("robot", "selected", "not selected")
    return dict(reversed([pair for pair in itertools.pairwise(text.splitlines()) if pair[0] in names]))


def robots(screenshot: bytes) -> NDArray[np.bool_]:
    """Which pixels of the map are of the legend's orange."""
    pixels = np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    found: NDArray[np.bool_] = (red - blue > 80) & (red - green > 30)
    # Neither the legend nor the charts beside the map.
    found[:80], found[430:], found[:, :50], found[:, 800:] = False, False, False, False
    return found
