"""Files: written whole or not at all, and read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.files import digest, whole_file, write_csv, write_json
from common.refusal import Refusal


def test_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    with pytest.raises(UnicodeEncodeError), whole_file(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_reader_of_the_earlier_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with open(path, encoding="utf-8") as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 2}


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})


def test_csv_reads_back_exactly(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    write_csv(tmp_path / "a.csv", ["x", "y"], [{"x": value, "y": None}])
    header, row = (tmp_path / "a.csv").read_text().splitlines()
    assert header == "x,y"
    assert float(row.split(",")[0]) == value
    assert row.endswith(",")


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert digest(pixels.data) == digest(pixels.tobytes())
    assert digest(pixels.T.data) == digest(pixels.T.tobytes()) != digest(pixels.data)
