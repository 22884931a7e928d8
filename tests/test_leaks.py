"""Patients, studies and pictures in two parts: what must be found, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from test_near_copies import smooth

from common.files import digest
from common.films.decode import read_film
from common.preparation import leaks as leak_search
from common.preparation import near_copies
from common.preparation.leaks import (
    ComparedFilms,
    Leaks,
    Pair,
    concatenate,
    find_leaks,
    first_pairs,
    not_checkable,
    pair_rows,
    read_reviewed,
)
from common.preparation.near_copies import CONFIRM_SIDE, nominated, perceptual_hash
from common.refusal import Refusal


def _reduce(film: np.ndarray, side: int) -> np.ndarray:
    how = cv2.INTER_LINEAR if min(film.shape) < side else cv2.INTER_AREA
    return cv2.resize(film, (side, side), interpolation=how)


def _facts(
    part: Sequence[str],
    patient: Sequence[str] | None = None,
    study: Sequence[str] | None = None,
    picture: Sequence[str] | None = None,
) -> ComparedFilms:
    """Films c0, c1 ... whose hashes are far apart; what is not given is different for each."""
    n = len(part)
    hashes = np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64)
    return ComparedFilms(
        [f"c{i}" for i in range(n)],
        patient or [f"p{i}" for i in range(n)],
        [True] * n,
        study or [""] * n,
        picture or [""] * n,
        hashes,
        part,
        lambda i: pytest.fail("no film is needed"),
    )


def _of_pictures(films: Sequence[np.ndarray], part: Sequence[str]) -> ComparedFilms:
    """Films of different patients, from their pixels."""
    n = len(films)
    return ComparedFilms(
        [f"c{i}" for i in range(n)],
        [f"p{i}" for i in range(n)],
        [True] * n,
        [""] * n,
        [digest(film.tobytes()) for film in films],
        np.array([perceptual_hash(film) for film in films], dtype=np.uint64),
        part,
        lambda i: _reduce(films[i], CONFIRM_SIDE),
    )


def _short(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [(pair.case_a, pair.case_b, pair.why) for pair in pairs]


# --- exact checks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["patient", "study", "picture"])
@pytest.mark.parametrize(
    "parts",
    [("ntuh_train fold 0", "ntuh_test"), ("ntuh_train fold 0", "ntuh_train fold 1"), ("siim", "ntuh_test")],
)
def test_shared_in_two_parts(what: str, parts: tuple[str, str]) -> None:
    films = _facts([parts[0], *parts, parts[0]], **{what: ["x", "y", "x", "z"]})
    assert find_leaks(films) == Leaks([Pair("c0", parts[0], "c2", parts[1], f"same {what}", None)])


@pytest.mark.parametrize("what", ["patient", "study", "picture"])
def test_shared_in_one_part_or_unknown_is_no_leak(what: str) -> None:
    assert find_leaks(_facts(["a", "a", "b", "b"], **{what: ["x", "x", "", ""]})) == Leaks()
    assert find_leaks(_facts(["a", "b", "c"], **{what: ["", "", ""]})) == Leaks()


def test_a_pair_is_told_once_with_all_it_shares() -> None:
    films = _facts(["b", "a"], ["p", "p"], ["s", "s"], ["h", "h"])
    assert find_leaks(films).errors == [
        Pair("c0", "b", "c1", "a", "same patient, same study, same picture", None)
    ]


def test_all_pairs_as_a_plain_loop_finds_them() -> None:
    rng = np.random.default_rng(1)
    n = 200
    part = [f"part {i}" for i in rng.integers(0, 4, n)]
    keys = {
        name: [f"{i}" if i else "" for i in rng.integers(0, 80, n)]
        for name in ("patient", "study", "picture")
    }
    expected = []
    for i in range(n):
        for j in range(i + 1, n):
            why = [f"same {name}" for name, key in keys.items() if key[i] and key[i] == key[j]]
            if why and part[i] != part[j]:
                expected.append((f"c{i}", f"c{j}", ", ".join(why)))
    assert len(expected) > 300
    assert _short(find_leaks(_facts(part, **keys)).errors) == expected


def test_a_limit_is_counted_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leak_search, near_copies):
        monkeypatch.setattr(module, "MOST_PAIRS", 7)
    part = ["a"] * 3 + ["b"] * 4 + ["c"]
    films = _facts(part, picture=["h"] * 8)
    leaks = find_leaks(films)
    assert (len(leaks.errors), leaks.unlisted) == (7, 3 * 4 + 3 + 4 - 7)
    # where the listed ones are cleared, the others still show
    reviewed = {(pair.case_a, pair.case_b) for pair in leaks.errors}
    assert find_leaks(films, reviewed).errors
    assert not find_leaks(_facts(["a", "b", "a"], picture=["h", "h", ""]), {("c0", "c1")}).unlisted
    monkeypatch.setattr(near_copies, "_TILE", (1, 4))
    hashes = np.array([7, 7, 3, 1, 0, 0, 0, 0], dtype=np.uint64)
    parts = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    first, second, distance, beyond = nominated(hashes, parts)
    assert sorted(distance) == [1] * 4 + [2] * 3  # the nearest
    assert beyond == 9
    assert (first < second).all()


@pytest.mark.slow
def test_a_million_films() -> None:
    n = 1_000_000
    names = [f"{i:016x}" for i in range(n)]
    shared = [*names[:-1], names[0]]
    films = ComparedFilms(
        names, shared, np.ones(n), names, shared, np.zeros(n, np.uint64), ["a", "b"] * (n // 2), len
    )
    leaks = find_leaks(films, radius=None)
    assert _short(leaks.errors) == [(names[0], names[-1], "same patient, same picture")]


def test_copies_are_errors_and_alike_pictures_are_warnings() -> None:
    films = [smooth(seed, 512) for seed in range(4)]
    curve = np.rint(255 * (np.arange(256) / 255) ** 1.7).astype(np.uint8)
    alike = cv2.warpAffine(
        films[2], np.float32([[1, 0, 6], [0, 1, 6]]), (512, 512), borderMode=cv2.BORDER_REFLECT
    )
    copies = [curve[_reduce(films[0], 300)], 255 - films[1], alike, smooth(9, 512)]
    leaks = find_leaks(_of_pictures([*films, *copies], ["siim"] * 4 + ["ntuh_test"] * 4))
    assert _short(leaks.errors) == [("c0", "c4", "same picture"), ("c1", "c5", "same picture, inverted")]
    assert [abs(pair.correlation) >= 0.99 for pair in leaks.errors] == [True, True]
    assert [(pair.case_a, pair.case_b) for pair in leaks.warnings] == [("c2", "c6")]
    assert 0.5 < leaks.warnings[0].correlation < 0.99
    assert not find_leaks(_of_pictures([*films, *copies], ["siim"] * 8)).errors


def test_films_are_read_only_to_confirm() -> None:
    pictures = [smooth(0), smooth(0), smooth(1), smooth(1) // 2, smooth(2)]
    films = _of_pictures(pictures, ["a", "b", "a", "b", "a"])
    asked = []
    counted = ComparedFilms(
        *(getattr(films, name) for name in leak_search._ARRAYS),
        lambda i: asked.append(i) or films.film_256(i),
    )
    assert len(find_leaks(counted).errors) == 2
    assert sorted(asked) == [2, 3]  # 0 and 1 have the same pixels


def test_a_copy_of_a_known_patient_is_told_once() -> None:
    films = _of_pictures([smooth(0), smooth(0) // 2, smooth(5)], ["a", "b", "b"])
    same = ComparedFilms(
        films.case,
        ["p", "p", "q"],
        *(getattr(films, name) for name in leak_search._ARRAYS[2:]),
        films.film_256,
    )
    assert find_leaks(same).warnings == []
    assert _short(find_leaks(same).errors) == [("c0", "c1", "same patient, same picture")]


def test_alike_films_of_a_known_patient_are_no_warning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "correlation", lambda first, second: 0.9)
    films = _of_pictures([smooth(0), smooth(0) // 2], ["a", "b"])
    assert len(find_leaks(films).warnings) == 1
    same = ComparedFilms(
        films.case, ["p", "p"], *(getattr(films, name) for name in leak_search._ARRAYS[2:]), films.film_256
    )
    leaks = find_leaks(same)
    assert (_short(leaks.errors), leaks.warnings) == ([("c0", "c1", "same patient")], [])


def test_warnings_have_the_most_similar_first() -> None:
    def shifted(film: np.ndarray, by: int) -> np.ndarray:
        return cv2.warpAffine(
            film, np.float32([[1, 0, by], [0, 1, 0]]), (256, 256), borderMode=cv2.BORDER_REFLECT
        )

    films = [smooth(2), smooth(1), shifted(smooth(2), 4), shifted(smooth(1), 3)]
    warnings = find_leaks(_of_pictures(films, ["a", "a", "b", "b"])).warnings
    assert [(pair.case_a, pair.case_b) for pair in warnings] == [("c1", "c3"), ("c0", "c2")]


# --- reviewed pairs --------------------------------------------------------------------------------


def test_reviewed_pairs_clear_pictures_only() -> None:
    films = [smooth(0), smooth(1), smooth(0), smooth(1) // 2]
    pictures = _of_pictures(films, ["a", "a", "b", "b"])
    assert len(find_leaks(pictures).errors) == 2
    assert find_leaks(pictures, {("c2", "c0"), ("c1", "c3")}) == Leaks()
    assert _short(find_leaks(pictures, {("c0", "c2"), ("c1", "c2")}).errors) == [("c1", "c3", "same picture")]
    names = ComparedFilms(
        ["z", "y", "b", "a"],
        *(getattr(pictures, name) for name in leak_search._ARRAYS[1:]),
        pictures.film_256,
    )
    assert find_leaks(names, {("b", "z"), ("y", "a")}) == Leaks()  # whichever name comes first
    assert len(find_leaks(pictures, {("c0", "c2")}, radius=None).errors) == 0
    for what in ("patient", "study"):
        known = _facts(["a", "b"], picture=["h", "h"], **{what: ["x", "x"]})
        assert _short(find_leaks(known, {("c0", "c1")}).errors) == [("c0", "c1", f"same {what}")]


def test_reviewed_file(tmp_path: Path) -> None:
    path = tmp_path / "reviewed.csv"
    assert read_reviewed(path) == frozenset()
    text = 'case_b, case_a,note,reviewer\nc2 ,c1,"a, b",x\n\nc1,c2,,\nc9,c3,,y\n'
    path.write_text(text, encoding="utf-8-sig")
    assert read_reviewed(path) == {("c1", "c2"), ("c3", "c9")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "row 1: the column case_a"),
        ("case_a,case\nc1,c2\n", "row 1: the column case_b"),
        ("case_a,case_b,case_a\n", "row 1: the column case_a"),
        ("case_a,case_b\nc1,c2\nc3\n", "row 3"),
        ("case_a,case_b\nc1,\n", "row 2"),
        ("case_a,case_b\nc1,c1\n", "row 2"),
        ("case_a,case_b,note\nc1,c2,by, Jane Doe\n", "row 2"),
        ('case_a,case_b\nc1,c2\n"c3,c4\n', "after row 2"),
        (b"case_a,case_b\n\xff\xfe,c2\n", "after row 1"),
    ],
)
def test_malformed_reviewed_file_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "reviewed.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Refusal, match=rf"reviewed\.csv, {said}") as refusal:
        read_reviewed(path)
    assert "Doe" not in str(refusal.value)


# --- what callers use ------------------------------------------------------------------------------


def test_films_of_several_sets() -> None:
    rows = pd.DataFrame(
        {"case": ["c1", "c2"], "patient": ["p1", "p2"], "patient_known": [1, 0], "study": ["s1", None]}
    ).to_dict("records")
    one = ComparedFilms.of(
        rows, ["h1", "h2"], ["00000000000000ff", "f" * 16], ["siim"] * 2, lambda i: np.full((1, 1), i)
    )
    assert one.study.tolist() == ["s1", ""]
    assert one.perceptual.tolist() == [255, 2**64 - 1]
    assert one.patient_known.tolist() == [True, False]
    none = ComparedFilms.of([], [], [], [], lambda i: pytest.fail("has no films"))
    both = concatenate([none, one, none, one])
    assert both.case.tolist() == ["c1", "c2", "c1", "c2"]
    assert [both.film_256(i).item() for i in range(4)] == [0, 1, 0, 1]
    assert len(concatenate([none])) == 0
    assert find_leaks(concatenate([none])) == Leaks()
    with pytest.raises(ValueError, match="different shapes"):
        ComparedFilms(["c"], ["p"], [True], ["s"], ["h"], np.zeros(2, np.uint64), ["a"], len)
    with pytest.raises(ValueError, match="not uint64"):
        ComparedFilms(["c"], ["p"], [True], ["s"], ["h"], [3.0], ["a"], len)


def test_message_and_table() -> None:
    pairs = [Pair(f"a{i}", "siim", f"b{i}", "ntuh_test", "same picture", 0.995) for i in range(12)]
    assert first_pairs(pairs[:1]) == "a0 (siim) and b0 (ntuh_test): same picture"
    assert first_pairs(pairs).endswith("b9 (ntuh_test): same picture; ... and 2 more")
    assert first_pairs(pairs, 5_000).endswith("... and 5,002 more")
    rows = pair_rows(Leaks(pairs[:2], pairs[2:3]))
    assert [row["kind"] for row in rows] == ["error", "error", "warning"]
    assert list(rows[0]) == list(leak_search.PAIR_COLUMNS)


def test_what_cannot_be_checked_is_said() -> None:
    rows = [
        {"case": f"c{i}", "patient": f"p{i}", "patient_known": known, "study": study}
        for i, (known, study) in enumerate([(1, "s"), (0, ""), (0, "t"), (1, ""), (1, "u")])
    ]
    part = ["siim", "siim", "ntuh_train fold 0", "ntuh_train fold 4", "ntuh_test"]
    films = ComparedFilms.of(rows, [""] * 5, ["0"] * 5, part, len)
    siim, patient, study = not_checkable(films)
    assert "without a table of patients: 2 films of SIIM-ACR" in siim
    assert "1 film of ntuh_train;" in patient
    assert "1 film of ntuh_train, 1 film of siim;" in study
    assert "1,000 pairs" in not_checkable(films, Leaks(unconfirmed=1000))[-1]
    assert not_checkable(ComparedFilms.of(rows[-1:], [""], ["0"], part[-1:], len)) == []


# --- real films ------------------------------------------------------------------------------------


@cache
def _real_films(real: Path) -> list[tuple[Path, np.ndarray]]:
    """One (file, prepared film) for each source film, without a painted lesion where there is one such."""
    folder = real / "semisynthetic"
    files = {path.stem: path for kind in ("hospital", "siim") for path in (folder / kind).rglob("*.dcm")}
    truth = pd.read_csv(folder / "truth.csv").sort_values(["label", "case_id"])
    cases = truth.drop_duplicates("source_film")["case_id"]
    return [(files[case], _reduce(read_film(files[case]).pixels, 1024)) for case in cases]


@pytest.mark.slow
def test_different_real_films_are_no_errors(real: Path) -> None:
    films = [film for _, film in _real_films(real)]
    assert len(films) == 214
    leaks = find_leaks(_of_pictures(films, ["siim", "ntuh_test"] * 107))
    assert leaks.errors == []
    # all pairs, whatever their hashes: the most alike are two films of one patient
    small = np.stack([_reduce(film, CONFIRM_SIDE) for film in films])
    ranks = np.stack([near_copies._ranks(film) for film in small])
    for kind in (small, ranks):
        r = np.corrcoef(kind.reshape(214, -1))
        assert np.abs(r[np.triu_indices(214, 1)]).max() < 0.96


def _jpeg(film: np.ndarray, quality: int) -> np.ndarray:
    _, stream = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE)


def _resized(film: np.ndarray, scale: float) -> np.ndarray:
    return _reduce(_reduce(film, round(1024 * scale)), 1024)


def _window(film: np.ndarray, below: float, above: float, gamma: float = 1) -> np.ndarray:
    """Greys from a quantile (%) to another one over the whole range, then a gamma."""
    low, high = np.percentile(film, [below, 100 - above])
    return np.rint(255 * np.clip((film - low) / (high - low), 0, 1) ** gamma).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"JPEG {quality}": lambda film, q=quality: _jpeg(film, q) for quality in (60, 75, 95)},
    **{f"{scale:.0%}": lambda film, s=scale: _resized(film, s) for scale in (0.7, 1.4)},
    **{f"gamma {gamma}": lambda film, g=gamma: _window(film, 0, 0, g) for gamma in (0.4, 0.7, 1.5, 2.5)},
    **{f"clipped {share}%": lambda film, s=share: _window(film, s, s) for share in (1, 5, 15)},
    "dark clipped": lambda film: _window(film, 15, 0),
    "bright clipped": lambda film: _window(film, 0, 15),
    "narrow range": lambda film: np.rint(60 + film * 0.4).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "inverted": lambda film: 255 - film,
    "all": lambda film: _jpeg(_resized(_window(film, 2, 2, 1.5), 0.7), 75),
}


@pytest.mark.all
@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_of_real_films_are_errors(real: Path, kind: str) -> None:
    films = [film for _, film in _real_films(real)[::3]]
    copies = [COPIES[kind](film) for film in films]
    n = len(films)
    leaks = find_leaks(_of_pictures(films + copies, ["siim"] * n + ["ntuh_train fold 2"] * n))
    assert [(pair.case_a, pair.case_b) for pair in leaks.errors] == [(f"c{i}", f"c{i + n}") for i in range(n)]


@pytest.mark.slow
def test_stored_values_of_real_films_are_errors(real: Path, tmp_path: Path) -> None:
    """16-bit PNGs as a viewer without windows exports them: MONOCHROME1 is inverted."""
    films, copies, inverted = [], [], []
    for path, film in _real_films(real):
        dataset = pydicom.dcmread(path)
        if dataset.BitsStored > 8:
            png = tmp_path / f"{len(films)}.png"
            cv2.imwrite(str(png), dataset.pixel_array.astype(np.uint16) * 16)
            films.append(film)
            copies.append(_reduce(read_film(png).pixels, 1024))
            inverted.append(dataset.PhotometricInterpretation == "MONOCHROME1")
    n = len(films)
    assert n > 70
    assert 20 < sum(inverted) < n
    leaks = find_leaks(_of_pictures(films + copies, ["ntuh_test"] * n + ["siim"] * n))
    assert [(pair.case_a, pair.case_b) for pair in leaks.errors] == [(f"c{i}", f"c{i + n}") for i in range(n)]
    assert ["inverted" in pair.why for pair in leaks.errors] == inverted


def test_painted_lesions_do_not_hide_a_real_film(real: Path) -> None:
    """The same film in the hospital's or SIIM's form, once with a lesion painted in."""
    folder = real / "semisynthetic"
    files = {path.stem: path for kind in ("hospital", "siim") for path in (folder / kind).rglob("*.dcm")}
    truth = pd.read_csv(folder / "truth.csv")
    groups = [group["case_id"].tolist()[:2] for _, group in truth.groupby("source_film") if len(group) > 1]
    read = [[_reduce(read_film(files[case]).pixels, 1024) for case in group] for group in groups[::4]]
    n = len(read)
    leaks = find_leaks(_of_pictures([a for a, _ in read] + [b for _, b in read], ["a"] * n + ["b"] * n))
    assert n >= 25
    assert [(pair.case_a, pair.case_b) for pair in leaks.errors] == [(f"c{i}", f"c{i + n}") for i in range(n)]
