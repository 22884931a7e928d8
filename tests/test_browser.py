"""The report in a real browser: headless Chromium, where there is one."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE
from page_study import HOSTILE, made_up_cases, metric_rows, row, write_study

from common.report.page import PLOTS, write_report
from common.report.shown_films import worst_films

# Written into the page when all of it is there: what a test then reads from the page's final state.
_LOOK = """<script>
window.addEventListener("load", () => setTimeout(() => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const pictures = [...document.images].map(i => {
    const box = i.getBoundingClientRect();
    return {kind: i.src.slice(0, 15), complete: i.complete, own: [i.naturalWidth, i.naturalHeight],
            shown: [box.width, box.height], seen: getComputedStyle(i).visibility};
  });
  const found = {pictures, hacked: "hacked" in window, scripts: document.scripts.length,
                 overflow: document.documentElement.scrollWidth - innerWidth,
                 outside: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:"))};
  const note = document.createElement("pre");
  note.id = "looked";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
}, 0));
</script></head>"""  # noqa: E501


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on the PATH")


@pytest.fixture(scope="module")
def report(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with hostile text in identifiers, headers and facts, and with every kind of row."""
    cases = made_up_cases()
    names = cases.case.astype(object)
    names[worst_films(cases)["missed"][0]] = HOSTILE
    hostile = dict.fromkeys(("sex", "view", "manufacturer"), np.full(len(cases), HOSTILE))
    cases = dataclasses.replace(cases, case=names.astype(str), **hostile)
    rows = metric_rows("eff", "vit")
    rows.append(row("eff", "mask", "two_stage", f"device {HOSTILE}", "auroc", 0.9) | {"note": HOSTILE})
    rows.append(row(f"reader {HOSTILE}", "mask", "call", "all", "sensitivity", 0.9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(tmp_path_factory.mktemp("browser")))
        results = write_study(cases, "eff", "vit", note=HOSTILE)
        return write_report(results, rows, 1000, 0)[0]


def run(chromium: str, page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Open a page; what Chromium prints, and the lines that the page left in the console."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def looked(chromium: str, report: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a script sees in a copy of the report whose policy lets scripts run: the escaping stands alone."""
    folder = tmp_path_factory.mktemp("looked")
    html, policies = re.subn(r"<meta http-equiv=[^>]*>", "", report.read_text(encoding="utf-8"))
    assert policies == 1
    copy = folder / "copy.html"
    copy.write_text(html.replace("</head>", _LOOK, 1), encoding="utf-8")
    page, console = run(chromium, copy, folder, "--window-size=1280,900", "--dump-dom")
    found = json.loads(unescape(re.search(r'<pre id="looked">(.*?)</pre>', page, re.DOTALL)[1]))
    return found | {"console": console}


def test_every_figure_and_film_is_seen(looked):
    pictures = looked["pictures"]
    assert sum(picture["kind"] == "data:image/svg+" for picture in pictures) == len(PLOTS)
    assert sum(picture["kind"] == "data:image/jpeg" for picture in pictures) >= 10
    for picture in pictures:
        assert picture["complete"]
        assert picture["seen"] == "visible"
        assert min(picture["own"]) >= 80
        assert min(picture["shown"]) >= 80


def test_hostile_text_runs_nothing(looked):
    assert not looked["hacked"]
    assert looked["scripts"] == 1  # the one of this test


def test_nothing_is_asked_for_and_nothing_is_wider_than_the_window(looked):
    assert looked["outside"] == []
    assert looked["overflow"] <= 0
    assert looked["console"] == []


def test_the_report_as_it_is_prints_without_a_word_in_the_console(
    chromium: str, report: Path, tmp_path: Path
):
    pdf = tmp_path / "report.pdf"
    _, console = run(chromium, report, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert console == []
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert pages >= 8  # each chapter begins a page
    opened = tmp_path / "opened.html"
    opened.write_text(
        report.read_text(encoding="utf-8").replace("<details>", "<details open>"), encoding="utf-8"
    )
    run(chromium, opened, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) == pages  # what is folded is printed, too
