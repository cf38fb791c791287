"""The page in a real browser: opened, looked at and clicked through."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no Chromium with chromedriver here: apt-get install chromium chromium-driver",
)
selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install 'embodied-midtrain[dev]'")
from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

DESK, PHONE = (1280, 900), (360, 740)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> Iterator[webdriver.Chrome]:
    """The page freshly opened at desk size in light colours; no test may leave an error in the console."""
    yield from _opened(browser, page)


@pytest.fixture
def opened_study(browser: webdriver.Chrome, study_page: Path) -> Iterator[webdriver.Chrome]:
    """The same of a study's page."""
    yield from _opened(browser, study_page)


def _opened(browser: webdriver.Chrome, page: Path) -> Iterator[webdriver.Chrome]:
    show(browser, page, DESK, "light")
    yield browser
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []


def show(browser: webdriver.Chrome, page: Path, size: tuple[int, int], scheme: str) -> None:
    command: Callable[..., object] = browser.execute_cdp_cmd
    command("Emulation.setDeviceMetricsOverride", {
        "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE,
    })  # fmt: skip
    command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()


def ground(browser: webdriver.Chrome) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


def test_nothing_is_asked_of_the_network(browser: webdriver.Chrome, page: Path) -> None:
    browser.get_log("performance")
    show(browser, page, DESK, "light")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert page.as_uri() in urls, "the log must hold the page itself, or this test sees nothing"
    assert {url.split(":", 1)[0] for url in urls} <= {"file", "data"}


def test_text_of_data_sets_is_text(opened: webdriver.Chrome) -> None:
    assert opened.title.startswith("quickstart")
    assert "<script>document.title" in opened.find_element(By.CSS_SELECTOR, ".gallery").text
    assert len(opened.find_elements(By.TAG_NAME, "script")) == 1
    assert opened.find_elements(By.CSS_SELECTOR, "img[onerror]") == []


def test_a_script_that_got_in_would_not_run(opened: webdriver.Chrome) -> None:
    opened.execute_script(
        "const s = document.createElement('script'); s.text = 'window.got = 1'; document.body.append(s)"
    )
    assert opened.execute_script("return window.got") is None
    # The policy's own complaint is what is wanted here.
    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_the_answer_comes_first(opened: webdriver.Chrome) -> None:
    heading = opened.find_element(By.TAG_NAME, "h1")
    assert "Mid-trained on selected is ahead of off the shelf" in heading.text
    assert heading.location["y"] + heading.size["height"] < DESK[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["page", "study_page"])
def test_a_phone_has_nothing_to_scroll_sideways(
    browser: webdriver.Chrome, which: str, scheme: str, request: pytest.FixtureRequest
) -> None:
    show(browser, request.getfixturevalue(which), PHONE, scheme)
    for detail in browser.find_elements(By.TAG_NAME, "details"):
        browser.execute_script("arguments[0].open = true", detail)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    beyond = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll, .chosen, nav, pre')).map(e => e.outerHTML.slice(0, 120))"
    )
    assert (width, beyond) == (PHONE[0], [])


def test_dark_follows_the_system_and_the_button(opened: webdriver.Chrome, page: Path) -> None:
    light = ground(opened)
    opened.find_element(By.ID, "theme").click()
    dark = ground(opened)
    assert dark != light
    opened.refresh()
    assert ground(opened) == dark, "the choice is kept"
    opened.find_element(By.ID, "theme").click()
    assert ground(opened) == light
    show(opened, page, DESK, "dark")
    assert ground(opened) == dark


def test_tabs_show_one_panel_each(opened: webdriver.Chrome) -> None:
    lists = opened.find_elements(By.CSS_SELECTOR, "[role=tablist]")
    assert len(lists) == 2
    for tabs in (tablist.find_elements(By.CSS_SELECTOR, "[role=tab]") for tablist in lists):
        for tab in tabs:
            opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", tab)
            tab.click()
            shown = [t.get_attribute("aria-controls") for t in tabs if panel_of(opened, t).is_displayed()]
            assert shown == [tab.get_attribute("aria-controls")]
            assert tab.get_attribute("aria-selected") == "true"


def panel_of(browser: webdriver.Chrome, tab):  # type: ignore[no-untyped-def]
    return browser.find_element(By.ID, tab.get_attribute("aria-controls"))


def shown_rows(panel) -> list[list[str]]:  # type: ignore[no-untyped-def]
    script = """
      const rows = [...arguments[0].querySelectorAll('tbody tr')].filter(row => !row.hidden);
      return rows.map(row => [...row.cells].map(cell => cell.innerText.trim()));
    """
    return panel.parent.execute_script(script, panel)


def test_the_manifest_filters_and_sorts(opened: webdriver.Chrome) -> None:
    panel = opened.find_element(By.CSS_SELECTOR, "[data-table]")
    everything = shown_rows(panel)
    assert len(everything) == 160
    Select(panel.find_element(By.TAG_NAME, "select")).select_by_visible_text("chart-qa")
    charts = shown_rows(panel)
    assert 0 < len(charts) < 160 and {row[1] for row in charts} == {"chart-qa"}
    assert panel.find_element(By.CSS_SELECTOR, "[data-count]").text == str(len(charts))
    Select(panel.find_element(By.TAG_NAME, "select")).select_by_visible_text("all")
    panel.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("CLIP 00082")
    assert [row[5] for row in shown_rows(panel)] == ["A clip art picture, number 82."]
    panel.find_element(By.CSS_SELECTOR, "input[type=search]").clear()
    panel.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys(" ")
    score = next(b for b in panel.find_elements(By.CSS_SELECTOR, "th button") if b.text.startswith("score"))
    for sign in (1, -1):
        opened.execute_script("arguments[0].click()", score)
        values = [float(row[3]) for row in shown_rows(panel)]
        assert len(values) == 160 and values == sorted(values, reverse=sign < 0)


def test_the_csv_holds_the_whole_selection(opened: webdriver.Chrome) -> None:
    link = opened.find_element(By.CSS_SELECTOR, "a[download]")
    assert link.get_attribute("download") == "random-selection.csv"
    kind, data = link.get_attribute("href").split(";base64,")
    lines = base64.b64decode(data).decode().splitlines()
    assert kind.startswith("data:text/csv") and lines[0] == "rank,source,id,score,percentile" and len(lines) == 161


def test_the_gallery_changes_with_the_source(opened: webdriver.Chrome) -> None:
    select = Select(opened.find_element(By.CSS_SELECTOR, "select[data-shows=shelf]"))
    for name in ("document-ocr", "tabletop"):
        select.select_by_visible_text(name)
        panels = [p for p in opened.find_elements(By.CSS_SELECTOR, "[data-panel=shelf]") if p.is_displayed()]
        assert len(panels) == 1
        assert name in panels[0].find_element(By.TAG_NAME, "h3").text
        images = panels[0].find_elements(By.TAG_NAME, "img")
        assert images and all(i.get_attribute("alt") for i in images)
        assert all(opened.execute_script("return arguments[0].naturalWidth > 0", i) for i in images)
    assert opened.find_elements(By.CSS_SELECTOR, "[data-panel=shelf] .mark.point")


def test_the_map_names_what_is_under_the_cursor(opened: webdriver.Chrome) -> None:
    svg = opened.find_element(By.CSS_SELECTOR, ".map svg")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", svg)
    path = svg.find_element(By.CSS_SELECTOR, "path")
    x, y = map(int, path.get_attribute("d").split("h")[0].lstrip("M").split())
    side = svg.size["width"] / 1000
    ActionChains(opened).move_to_element_with_offset(svg, (x - 500) * side, (y - 500) * side).perform()
    tip = opened.find_element(By.CSS_SELECTOR, ".map .tip")
    assert tip.is_displayed() and tip.text == path.get_attribute("data-name")
    button = opened.find_element(By.CSS_SELECTOR, "#gap .legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and not path.is_displayed()
    button.click()
    assert path.is_displayed()


def test_curves_show_their_values(opened: webdriver.Chrome) -> None:
    area = opened.find_element(By.CSS_SELECTOR, "#training .area")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", area)
    ActionChains(opened).move_to_element(area).perform()
    tip = area.find_element(By.CSS_SELECTOR, ".tip")
    # The middle of the axis lies between two points.
    assert re.match(r"mid-trained on random: [\d.]+ at step (199|201)\n", tip.text)


def test_videos_play(opened: webdriver.Chrome) -> None:
    videos = opened.find_elements(By.TAG_NAME, "video")
    assert len(videos) == 16
    assert all(v.get_attribute("src").startswith("data:video/mp4;base64,") for v in videos)
    ready = "return [...document.querySelectorAll('video')].every(v => v.readyState > 0 && v.videoWidth > 0)"
    WebDriverWait(opened, 20).until(lambda d: d.execute_script(ready))
    assert opened.execute_script("return [...document.querySelectorAll('video')].filter(v => v.error).length") == 0
    button = opened.find_element(By.CSS_SELECTOR, "[data-play]")
    opened.execute_script("arguments[0].click()", button)
    moving = "return [...document.querySelectorAll('video')].filter(v => v.currentTime > 0).length"
    WebDriverWait(opened, 20).until(lambda d: d.execute_script(moving) == 8)
    opened.execute_script("arguments[0].click()", button)
    assert opened.execute_script("return [...document.querySelectorAll('video')].every(v => v.paused)")


def test_every_link_of_the_bar_leads_somewhere(opened: webdriver.Chrome) -> None:
    links = opened.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) == 10
    for link in links:
        target = opened.find_element(By.ID, link.get_attribute("href").rsplit("#", 1)[1])
        assert target.find_element(By.TAG_NAME, "h2").text


def test_it_can_be_read_without_script(opened: webdriver.Chrome, page: Path) -> None:
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.get(page.as_uri())
        panels = opened.find_elements(By.CSS_SELECTOR, "[role=tabpanel], [data-panel]")
        assert panels and all(p.is_displayed() for p in panels)
        assert not opened.find_element(By.ID, "theme").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


NAMELESS = """
  const missing = [];
  const check = (selector, fine) => {
    for (const e of document.querySelectorAll(selector)) if (!fine(e)) missing.push(e.outerHTML.slice(0, 80));
  };
  const named = e => e.getAttribute('aria-label');
  check('img', e => e.alt);
  check('svg', e => named(e) || e.getAttribute('aria-hidden') === 'true');
  check('video', named);
  check('thead th', e => e.scope === 'col');
  check('tbody th', e => e.scope === 'row');
  check('select, input', e => named(e) || e.closest('label'));
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size !== ids.length) missing.push('an id is there twice');
  return missing;
"""


@pytest.mark.parametrize("which", ["opened", "opened_study"])
def test_what_helps_those_who_cannot_see(which: str, request: pytest.FixtureRequest) -> None:
    browser = request.getfixturevalue(which)
    assert browser.execute_script(NAMELESS) == []
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_a_study_is_drawn(opened_study: webdriver.Chrome) -> None:
    assert "is better than off the shelf on Sorting, mlp" in opened_study.find_element(By.TAG_NAME, "h1").text
    assert "<b>Grounding</b>" in opened_study.find_element(By.ID, "results").text, "names are text"
    for link in opened_study.find_elements(By.CSS_SELECTOR, "nav a"):
        target = opened_study.find_element(By.ID, link.get_attribute("href").rsplit("#", 1)[1])
        assert target.find_element(By.TAG_NAME, "h2").text
    cards = opened_study.find_elements(By.CSS_SELECTOR, "#results .card")
    # Two benchmarks x two heads, and what vla-eval is to play.
    assert len(cards) == 5
    rows = cards[0].find_elements(By.CSS_SELECTOR, ".row")
    places = {}
    for row in rows:
        strip = row.find_element(By.CSS_SELECTOR, ".strip")
        mean = row.find_element(By.CSS_SELECTOR, ".mean")
        middle = mean.location["x"] + mean.size["width"] / 2 - strip.location["x"]
        places[row.text.split("\n")[0]] = middle / strip.size["width"]
        assert len(row.find_elements(By.CSS_SELECTOR, ".seed")) == 3
    assert places["off the shelf"] == pytest.approx(0.5, abs=0.02) and places["scratch"] == pytest.approx(
        0.25, abs=0.02
    )
    chart = opened_study.find_element(By.CSS_SELECTOR, "#measures figure")
    # By number, for colours come again; the fourth is a control.
    spots = [one.text for one in chart.find_elements(By.CSS_SELECTOR, ".area .spot")]
    assert spots == [one.text for one in chart.find_elements(By.CSS_SELECTOR, ".legend .spot")] == ["1", "2", "3"]
    outcomes = [one.text for one in opened_study.find_elements(By.CSS_SELECTOR, "#differences .outcome")]
    assert outcomes.count("better") == 1 and outcomes.count("worse") == 4
