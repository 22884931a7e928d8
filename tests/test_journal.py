"""Journals: what a kill leaves of them, and that they go on."""

from pathlib import Path

import pytest

from common.journal import Journal, read_journal, write_journal


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path, [{"row": 0, "name": "a\u2028b é"}])  # U+2028 ends a line for str.splitlines
    with Journal(path) as journal:
        journal.add({"row": 1}, {"row": 2}, settle=True)
        assert [entry["row"] for entry in read_journal(path)] == [0, 1, 2]  # before it is closed
        journal.add({"row": 3})
        assert [entry["row"] for entry in read_journal(path)] == [0, 1, 2, 3]
    assert read_journal(path)[0]["name"] == "a\u2028b é"


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_line_that_was_cut_short_counts_for_nothing_and_costs_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path, [{"row": 0}, {"row": 1}])
    path.write_bytes(path.read_bytes()[:-cut])
    whole = [{"row": 0}] + [{"row": 1}] * (cut == 1)  # only the end of the line is gone
    assert read_journal(path) == whole
    with Journal(path) as journal:
        journal.add({"row": 2})
    assert read_journal(path) == [*whole, {"row": 2}]


def test_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'1\n"text"\n\xff\xfe\n{"row": 3}\n')
    assert read_journal(path) == [{"row": 3}]
