"""The reading room in a real browser: headless Chromium, driven by Playwright.

Playwright and not the command line of `test_browser.py`: here keys are pressed and pages answer.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from conftest import TESTING, Scripts
from page_study import HOSTILE

from benchmarks.reading_room import LESION, SIZES, reading_room, write_workspace
from common.films.own_outputs import RESEARCH_ONLY
from common.stages import STUDENTS, SYSTEMS

FILMS = 12


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
    yield browser
    browser.close()
    playwright.stop()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page in which nothing may go wrong: no word in the console, nothing asked for elsewhere."""
    page, wrong, hosts = chromium.new_page(viewport={"width": 1400, "height": 900}), [], set()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    yield page
    assert page.evaluate("'hacked' in window") is False
    page.close()
    assert wrong == []
    assert hosts - {None} == {"127.0.0.1"}  # None: what the page holds itself


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    write_workspace(folder, FILMS, FILMS, HOSTILE)
    return folder


def shown(page: Any, name: str) -> None:
    page.wait_for_selector(f'body[data-shown="{name}"]')


def pixels(page: Any, folder: Path) -> np.ndarray:
    """The stage of the viewer as it is seen, (h, w, 3) uint8, BGR, once it is still."""
    page.wait_for_timeout(400)
    page.locator(".stage").screenshot(path=folder / "stage.png")
    return cv2.imread(str(folder / "stage.png"))


# --- results ---------------------------------------------------------------------------------------


def test_the_grid_is_walked_by_keys_filtered_and_exported(made_up: Path, page: Any, tmp_path: Path) -> None:
    with reading_room(made_up) as (address, _):
        page.goto(address)
        page.wait_for_selector(".tile")
        assert RESEARCH_ONLY in page.inner_text("header")
        assert page.inner_text("#counts").startswith(f"{FILMS} films")
        option = page.locator('select[name="device"] option').nth(1)
        assert HOSTILE in option.text_content()
        page.select_option('select[name="lesion"]', "large")
        page.wait_for_selector("#counts:has-text('4 films')")
        page.focus("#grid")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        shown(page, f"c{3:016x}")
        assert page.is_checked("#marked")
        page.keyboard.press("ArrowRight")
        shown(page, f"c{6:016x}")
        assert not page.is_checked("#marked")
        page.keyboard.press("Escape")
        with page.expect_download() as download:
            page.click("a[download]:text-is('CSV')")
        rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
        assert [row["case"] for row in rows] == [f"c{3:016x}"]


def test_outlines_window_and_inversion_on_the_screen(made_up: Path, page: Any, tmp_path: Path) -> None:
    with reading_room(made_up) as (address, _):
        page.goto(address)
        page.wait_for_selector(".tile")
        page.keyboard.press("Enter")
        shown(page, f"c{0:016x}")
        for layer in "123":
            page.keyboard.press(layer)
        plain = pixels(page, tmp_path)
        middle = plain[150:750, 20:-20]
        assert (middle.max(axis=2) == middle.min(axis=2)).all()  # no outline is left
        seen = plain.min(axis=2) > 200
        seen[:100] = seen[750:] = False  # the words at the edges
        (top, left), (bottom, right) = np.argwhere(seen).min(axis=0), np.argwhere(seen).max(axis=0) + 1
        wide, high = SIZES[0]
        shares = (LESION[2] - LESION[0]) * wide / ((LESION[3] - LESION[1]) * high)
        assert (right - left) / (bottom - top) == pytest.approx(shares, rel=0.01)
        assert right < plain.shape[1] / 2  # the picture's left stays its left
        page.keyboard.press("1")
        truth = pixels(page, tmp_path)
        green = np.argwhere((truth[..., 1] > 150) & (truth[..., 2] < 100) & (truth[..., 0] < 160))
        assert green.min(axis=0) == pytest.approx((top, left), abs=3)
        assert green.max(axis=0) == pytest.approx((bottom, right), abs=3)
        page.keyboard.press("1")
        page.keyboard.press("i")
        inverted = pixels(page, tmp_path)
        inside = np.s_[top + 5 : bottom - 5, left + 5 : right - 5, 0]
        assert np.median(plain[inside]) == pytest.approx(250, abs=2)
        assert np.median(inverted[inside]) == pytest.approx(5, abs=2)
        page.keyboard.press("0")
        for _ in range(10):
            page.keyboard.press("w")  # window 135 about 127.5: from 60 to 195
        dark = np.s_[top + 5 : bottom - 5, right + 20 : right + 120, 0]
        windowed = pixels(page, tmp_path)
        expected = np.clip((plain[dark].astype(float) - 60) / 135 * 255, 0, 255)
        assert np.abs(windowed[dark] - expected).mean() < 2
        page.keyboard.press("0")
        assert np.abs(pixels(page, tmp_path)[inside].astype(int) - plain[inside]).max() <= 1


def test_students_and_films_without_a_label_are_seen(page: Any, tmp_path: Path) -> None:
    write_workspace(tmp_path, FILMS, FILMS, systems=(*SYSTEMS, *STUDENTS), unlabelled=3)
    with reading_room(tmp_path) as (address, _):
        page.goto(address)
        page.wait_for_selector(".tile")
        page.keyboard.press("x")
        assert page.evaluate(FAINT) == []
        page.keyboard.press("Enter")
        shown(page, f"c{0:016x}")
        assert page.evaluate(FAINT) == []
        for key, name in enumerate(("truth", *SYSTEMS, *STUDENTS), 1):
            outline = page.locator(f'.over path[data-layer="{name}"]')
            assert outline.is_visible()
            page.keyboard.press(str(key))
            assert not outline.is_visible()
        for key, name in enumerate((*SYSTEMS, *STUDENTS), 6):
            layer = page.locator(f'.over img[data-layer="{name} map"]')
            assert not layer.is_visible()
            page.keyboard.press(str(key))
            assert layer.is_visible()
        page.keyboard.press("ArrowRight")
        shown(page, f"c{1:016x}")
        page.click("text=Test films without a label")
        page.wait_for_selector(".tile")
        assert page.inner_text("#counts").startswith("3 films")
        page.keyboard.press("Enter")
        shown(page, f"c{FILMS - 3:016x}")
        assert "no label" in page.inner_text("#facts")
        assert "truth" not in page.inner_text("#layers")


# Words whose contrast with what is behind them is below 4.5 (WCAG 2.1, 1.4.3); none of them may be there
FAINT = """() => {
  const part = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter(element => element.checkVisibility()
      && [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())
  ).filter(element => {
    const [one, other] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
  }).map(element => element.textContent);
}"""


def test_a_threshold_is_moved_on_out_of_fold_films(chain: Scripts, page: Any) -> None:
    with reading_room(chain.workspace) as (address, _):
        page.goto(f"{address}out_of_fold/")
        page.wait_for_selector(".tile")
        page.wait_for_selector("#summary:has-text('eff, chosen')")
        before = page.inner_text("#summary")
        page.locator("input[name='eff']").fill("1")
        page.wait_for_selector("#summary:has-text('1.0000')")
        assert page.inner_text("#summary") != before
        option = 'select[name="eff change"] option[value="becomes negative"]'
        assert "(0)" not in page.locator(option).text_content()


# --- the reader study -------------------------------------------------------------------------------

CALLS = {"A1": ("p", 80), "B2": ("n", 20)}  # of every film


def read_session(page: Any, session: int, films: range, key: str, confidence: int) -> None:
    for position in films:
        shown(page, f"{session}-{position}")
        page.keyboard.press(key)
        for _ in range(abs(confidence - 50) // 5):
            page.keyboard.press("." if confidence > 50 else ",")
        page.keyboard.press("Enter")


def enter(page: Any, address: str, code: str) -> None:
    page.goto(address)
    page.fill("input[name=code]", code)
    page.keyboard.press("Enter")


def test_two_readers_call_all_films_over_a_kill_and_the_metrics_read_them(
    chain: Scripts, page: Any, tmp_path: Path
) -> None:
    with open(chain.workspace / "step3_testing/testing/result_eff/cases.csv", newline="") as file:
        films = len(list(csv.DictReader(file)))
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "plan.toml").write_text('[readers]\nA1 = ["without", "with"]\nB2 = ["with"]\n')
    with reading_room(chain.workspace, "--study", str(folder)) as (address, server):
        enter(page, address, "nobody")
        page.wait_for_selector("#said:has-text('no reader')")
        enter(page, address, "A1")
        page.click("#begin")
        read_session(page, 0, range(5), *CALLS["A1"])
        shown(page, "0-5")
        page.keyboard.press("Enter")
        assert page.locator("#call:invalid").count() == 1  # neither called nor said how sure
        page.keyboard.press("p")
        page.keyboard.press("Enter")
        assert page.locator("#confidence:invalid").count() == 1
        page.wait_for_timeout(200)
        assert len((folder / "calls.jsonl").read_bytes().splitlines()) == 1 + 5
        page.keyboard.press("Backspace")
        shown(page, "0-4")
        assert page.is_checked("input[value='1']")
        server.kill()
    with reading_room(chain.workspace, "--study", str(folder)) as (address, _):
        enter(page, address, "A1")
        read_session(page, 0, range(5, films), *CALLS["A1"])
        page.wait_for_selector("#between:has-text('Session 2 of 2')")
        page.click("#begin")
        read_session(page, 1, range(films), *CALLS["A1"])
        page.wait_for_selector("#between:has-text('Thank you')")
        enter(page, address, "B2")
        page.click("#begin")
        read_session(page, 0, range(films), *CALLS["B2"])
        page.wait_for_selector("#between:has-text('Thank you')")
    with open(folder / "calls.csv", newline="") as file:
        calls = list(csv.DictReader(file))
    assert len(calls) == 3 * films
    for call in calls:
        key, confidence = CALLS[call["reader"]]
        assert (call["call"], call["confidence"]) == (str(int(key == "p")), str(confidence))
    scripts = chain.copy(tmp_path / "workspace")
    scripts.python(TESTING, "bootstrap.py", "--replicates", "40", "--readers", str(folder / "calls.csv"))
    with open(scripts.workspace / TESTING / "metrics.csv", newline="") as file:
        sensitivities = {
            row["system"]: float(row["estimate"])
            for row in csv.DictReader(file)
            if (row["reference"], row["decision"], row["stratum"], row["metric"])
            == ("mask", "call", "all", "sensitivity")
        }
    assert sensitivities == {
        "reader A1": 1,
        "reader A1 aided": 1,
        "reader B2 aided": 0,
        "readers aided": 0.5,
    }
