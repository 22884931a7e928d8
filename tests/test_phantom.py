"""The synthetic films: layouts as downloaded or exported, sizes, determinism, no shortcut to the label."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from common.demo import phantom_sets
from common.demo.phantom import RECTANGLE_EXCESS, draw_anatomy, draw_film, target_area
from common.demo.phantom_sets import NTUH_TEST, NTUH_TRAIN, cover_with_rectangles, write_ntuh, write_siim

# SIIM-ACR writes ages as "64", which pydicom calls invalid
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR AS")

TOY_LIMIT = 0.75
SEED = 5


# --- reading back, with plain pydicom and pandas --------------------------------------------------------


def decode_runs(cells: list[str]) -> np.ndarray:
    """SIIM-ACR's pairs (gap, length), down the columns of 1024 x 1024, united over a film's rows."""
    flat = np.zeros(1024 * 1024, bool)
    for cell in cells:
        numbers = [int(n) for n in cell.split()]
        if numbers == [-1]:
            continue
        at = 0
        for gap, run in zip(numbers[::2], numbers[1::2], strict=True):
            at += gap
            flat[at : at + run] = True
            at += run
    return flat.reshape(1024, 1024).T


def fill_rectangles(label: dict) -> np.ndarray:
    """The union of a label's rectangles at the film's own size."""
    width, height = label["size"]
    mask = np.zeros((height, width), bool)
    for shape in label["shapes"]:
        (x0, x1), (y0, y1) = sorted((shape["a"][0], shape["b"][0])), sorted((shape["a"][1], shape["b"][1]))
        mask[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))] = True
    return mask


def cover(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """The union of the rectangles that an annotator would draw."""
    union = np.zeros_like(mask)
    for x0, y0, x1, y1 in cover_with_rectangles(rng, mask):
        union[max(0, round(y0)) : round(y1), max(0, round(x0)) : round(x1)] = True
    return union


def read_film(path: Path) -> np.ndarray:
    """A film in 0 to 1 with dark air: rescale, then window or min-max, then MONOCHROME1 inverted."""
    ds = pydicom.dcmread(path)
    film = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    if "WindowCenter" in ds:
        film = (film - ds.WindowCenter) / ds.WindowWidth + 0.5
    else:
        film = (film - film.min()) / (film.max() - film.min())
    film = np.clip(film, 0, 1)
    return 1 - film if ds.PhotometricInterpretation == "MONOCHROME1" else film


def header_facts(ds: pydicom.Dataset) -> dict[str, float | str]:
    """What a header says beside its identifiers and dates."""
    words = (
        "PatientSex",
        "ViewPosition",
        "Modality",
        "PhotometricInterpretation",
        "Manufacturer",
        "BitsStored",
    )
    age = str(ds.get("PatientAge", "")).rstrip("Y")
    spacing = ds.get("PixelSpacing", [0])[0]
    facts: dict[str, float | str] = {word: str(ds.get(word, "")) for word in words}
    facts |= {"syntax": str(ds.file_meta.TransferSyntaxUID), "class": str(ds.SOPClassUID)}
    facts |= {"age": float(age or 60), "age_known": float(bool(age)), "rows": float(ds.Rows)}
    facts |= {"columns": float(ds.Columns), "spacing": float(spacing), "window": float("WindowCenter" in ds)}
    return facts | {"rescale": float("RescaleSlope" in ds), "width": float(ds.get("WindowWidth", 0))}


# --- toys: the demo's check uses these on the demo's films ----------------------------------------------


def histogram(film: np.ndarray) -> np.ndarray:
    """Shares of 64 grey levels; the film in 0 to 1."""
    return np.histogram(film, bins=64, range=(0, 1))[0] / film.size


def thumbnail(film: np.ndarray) -> np.ndarray:
    """The film at 16 x 16, flattened."""
    return cv2.resize(film.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA).ravel()


def toy_auroc(train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray) -> float:
    """AUROC on the test rows of a logistic regression on standardised features, at the better penalty."""
    scores = []
    for penalty in (0.01, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=penalty))
        scores.append(roc_auc_score(test_label, model.fit(train, train_label).decision_function(test)))
    return float(max(scores))


def encode_facts(train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Header facts as numbers: words one-hot, as seen in training."""
    words = train.select_dtypes(exclude="number").columns
    one_hot = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(train[words])
    parts = [np.hstack([t.drop(columns=words), one_hot.transform(t[words])]) for t in (train, test)]
    return parts[0], parts[1]


# --- fixtures -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def siim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("siim")
    return folder, write_siim(folder, 10, 8, SEED, workers=1)


@pytest.fixture(scope="module")
def ntuh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("ntuh")
    return folder, write_ntuh(folder, 14, 16, 6, 12, SEED, workers=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The demo's own NTUH films: a row each, with its set, its label and what the toys see of it."""
    folder = tmp_path_factory.mktemp("demo")
    truth = write_ntuh(folder, **phantom_sets.DEMO_NTUH, seed=0, workers=2)
    truth = truth[truth["included"] & (truth["positive"] | ~truth["reported"])].reset_index(drop=True)
    rows = []
    for person in truth["id"]:
        path = folder / "images" / f"{person}.dcm"
        film = read_film(path)
        rows.append(
            {"histogram": histogram(film), "thumbnail": thumbnail(film), "darker": histogram(film * 0.9)}
            | {"header": header_facts(pydicom.dcmread(path, stop_before_pixels=True))}
        )
    return pd.concat([truth[["set", "positive"]], pd.DataFrame(rows)], axis=1)


def toy_on_demo(demo: pd.DataFrame, rows: np.ndarray) -> float:
    """AUROC of a toy that is fitted on the demo's training films and scored on its test films."""
    test, label = (demo["set"] == "test").to_numpy(), demo["positive"].to_numpy()
    return toy_auroc(rows[~test], label[~test], rows[test], label[test])


# --- layouts --------------------------------------------------------------------------------------------


def test_siim_layout_reads_back(siim: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = siim
    table = pd.read_csv(folder / "train-rle.csv")
    assert list(table.columns) == ["ImageId", " EncodedPixels"]
    cells = table.groupby("ImageId")[" EncodedPixels"].apply(list)
    assert len(cells) == 18
    assert cells.map(len).max() > 1, "no film has its mask in several rows"
    paths = {path.stem: path for path in folder.glob("dicom-images-train/*/*/*.dcm")}
    assert set(paths) == set(cells.index) == set(truth["id"])
    for row in truth.itertuples():
        mask = decode_runs(cells[row.id])
        assert mask.mean() == pytest.approx(row.area)
        assert mask.any() == row.positive
    empty = [cell for cell in table[" EncodedPixels"] if cell.strip() == "-1"]
    assert {" -1", "-1"} == set(empty)
    assert all(cell.startswith(" ") for cell in table[" EncodedPixels"] if cell.strip() != "-1")


def test_siim_dicom_is_as_downloaded(siim: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = siim
    patients = set()
    for path in folder.glob("dicom-images-train/*/*/*.dcm"):
        ds = pydicom.dcmread(path)
        assert path.parts[-3:] == (ds.StudyInstanceUID, ds.SeriesInstanceUID, f"{ds.SOPInstanceUID}.dcm")
        assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
        assert (ds.Rows, ds.Columns, ds.BitsStored, ds.PhotometricInterpretation) == (
            1024,
            1024,
            8,
            "MONOCHROME2",
        )
        assert (ds.Modality, ds.BodyPartExamined) == ("CR", "CHEST")
        assert ds.ViewPosition in ("PA", "AP")
        assert ds.pixel_array.shape == (1024, 1024)
        assert ds.pixel_array.std() > 20
        patients.add(ds.PatientID)
    assert len(patients) == 18


def test_siim_mask_lies_where_the_film_shows_it(siim: tuple[Path, pd.DataFrame]) -> None:
    """A transposed or mirrored mask has the right area and the wrong place."""
    folder, truth = siim
    table = pd.read_csv(folder / "train-rle.csv")
    cells = table.groupby("ImageId")[" EncodedPixels"].apply(list)
    contrast = {"as it is": [], "transposed": [], "mirrored": []}
    for name in truth.loc[truth["positive"] & (truth["area"] > 0.004), "id"]:
        film = read_film(next(folder.glob(f"dicom-images-train/*/*/{name}.dcm")))
        mask = decode_runs(cells[name])
        for key, view in zip(contrast, (mask, mask.T, mask[:, ::-1]), strict=True):
            contrast[key].append(film[view].mean())
    mean = {key: np.mean(values) for key, values in contrast.items()}
    assert mean["as it is"] < min(mean["transposed"], mean["mirrored"])


def test_ntuh_layout_reads_back(ntuh: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = ntuh
    columns = {
        "NTUH_1519.csv": ["PERSONID2", "ACCESSNO2", "氣胸", "胸管", "Training", "EXAM"],
        "NTUH_20.csv": ["PERSONID2", "ACCESSNO2", "氣胸", "胸管", "EXAM"],
    }
    for (file, header), name in zip(columns.items(), ("train", "test"), strict=True):
        raw = (folder / file).read_bytes()
        assert raw.startswith(b"\xef\xbb\xbf")
        assert raw.count(b"\r\n") < raw.count(b"\n"), "no cell has several lines"
        table = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
        assert raw.count(b"\r\n") == len(table) + 1
        assert list(table.columns) == header
        rows = truth[truth["set"] == name]
        assert list(table["PERSONID2"]) == list(rows["id"])
        assert table["PERSONID2"].str.fullmatch(r"P\d{12}").all()
        assert table["ACCESSNO2"].is_unique
        assert list(table["氣胸"] == "1") == list(rows["reported"])
        assert set(table["胸管"]) == {"1", ""}
        if name == "train":
            assert set(table["Training"]) == {"0", "1"}
    assert {path.stem for path in (folder / "images").iterdir()} == set(truth["id"])
    assert {path.name for path in (folder / "labels").iterdir()} == set(truth.loc[truth["positive"], "id"])


def test_ntuh_counts_are_of_included_films(ntuh: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = ntuh
    unmarked = truth["reported"] & ~truth["positive"]
    counts = truth[truth["included"] & ~unmarked].groupby(["set", "positive"]).size().to_dict()
    assert counts == {("train", True): 14, ("train", False): 16, ("test", True): 6, ("test", False): 12}
    assert truth[unmarked].groupby("set").size().to_dict() == {"train": 1, "test": 2}
    excluded = {}
    for file in ("NTUH_1519.csv", "NTUH_20.csv"):
        for row in pd.read_csv(folder / file, dtype=str, keep_default_na=False).to_dict("records"):
            ds = pydicom.dcmread(folder / "images" / f"{row['PERSONID2']}.dcm", stop_before_pixels=True)
            assert row["ACCESSNO2"] == ds.AccessionNumber
            assert ds.StudyDate.startswith("2020") == (file == "NTUH_20.csv")
            young = bool(ds.get("PatientAge")) and int(ds.PatientAge[:3]) < 20
            excluded[row["PERSONID2"]] = young or row["胸管"] == "1" or row.get("Training") == "0"
    assert [not excluded[name] for name in truth["id"]] == list(truth["included"])
    assert (~truth["included"]).sum() >= 5


def test_ntuh_patients_repeat_inside_a_file_only(tmp_path: Path) -> None:
    train, test = (phantom_sets._plan(tmp_path, 3, code, 60, 90) for code in (NTUH_TRAIN, NTUH_TEST))
    assert not {job.patient for job in train} & {job.patient for job in test}
    for jobs in (train, test):
        exams = pd.Series([job.patient for job in jobs]).value_counts()
        assert set(exams) == {1, 2, 3}
        assert len({job.person for job in jobs}) == len(jobs)
        assert any(job.age == "" for job in jobs)
    assert not {job.person for job in train} & {job.person for job in test}


def test_ntuh_labels_and_pixels(ntuh: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = ntuh
    tags, order, variety = set(), set(), set()
    for row in truth.itertuples():
        ds = pydicom.dcmread(folder / "images" / f"{row.id}.dcm")
        assert (ds.BitsAllocated, ds.BitsStored) == (16, 12)
        assert ds.pixel_array.max() < 4096
        variety.add((ds.PhotometricInterpretation, "WindowCenter" in ds, "RescaleSlope" in ds))
        if not row.positive:
            continue
        label = json.loads((folder / "labels" / row.id / "label.json").read_text(encoding="utf-8"))
        assert label["accessionNumber"] == ds.AccessionNumber
        assert label["size"] == [ds.Columns, ds.Rows]
        assert fill_rectangles(label).mean() == pytest.approx(row.area, abs=1e-3)
        for shape in label["shapes"]:
            tags.add(shape["tagAnno"])
            order.add((shape["a"][0] < shape["b"][0], shape["a"][1] < shape["b"][1]))
    assert tags == {"Pneumothorax", "Pneumothorax ", "PTX", "pneumothorax "}
    assert len(order) == 4
    assert {v[0] for v in variety} == {"MONOCHROME1", "MONOCHROME2"}
    assert {v[1] for v in variety} == {v[2] for v in variety} == {True, False}


def test_every_photometric_reads_as_the_same_kind_of_film(ntuh: tuple[Path, pd.DataFrame]) -> None:
    """The lungs are darker than the spine, whichever way the pixels are stored."""
    folder, truth = ntuh
    for name in truth["id"]:
        film = read_film(folder / "images" / f"{name}.dcm")
        h, w = film.shape
        spine = film[int(0.55 * h) : int(0.65 * h), int(0.46 * w) : int(0.54 * w)].mean()
        lungs = film[int(0.35 * h) : int(0.6 * h), int(0.25 * w) : int(0.4 * w)].mean()
        assert lungs < spine


# --- determinism ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def write(name: str, seed: int, workers: int) -> dict[str, bytes]:
        write_siim(tmp_path / name / "siim", 3, 3, seed, workers=workers)
        write_ntuh(tmp_path / name / "ntuh", 2, 2, 2, 2, seed, workers=workers)
        return contents(tmp_path / name)

    one, two, other = write("one", 1, 1), write("two", 1, 2), write("other", 2, 1)
    assert one == two
    assert not set(one.values()) & set(other.values())


# --- films ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "bounds"),
    [
        ("siim", {0.05: (0.0011, 0.0016), 0.5: (0.0074, 0.0090), 0.95: (0.039, 0.049)}),
        ("ntuh", {1 / 3: (0.027, 0.031), 0.5: (0.045, 0.051), 2 / 3: (0.073, 0.083)}),
    ],
)
def test_lesion_sizes(style: str, bounds: dict[float, tuple[float, float]]) -> None:
    """Quantiles of the share of the film that is asked for; for NTUH of the rectangles' union."""
    rng = np.random.default_rng(SEED)
    areas = np.array([target_area(rng, style) for _ in range(3000)])
    areas *= RECTANGLE_EXCESS if style == "ntuh" else 1
    for q, (low, high) in bounds.items():
        assert low < np.quantile(areas, q) < high, f"quantile {q:.2f}"


@pytest.mark.parametrize("style", ["siim", "ntuh"])
def test_drawn_lesion_has_the_size_asked_for(style: str) -> None:
    exact, covered, overlaps = [], [], []
    for i in range(40):
        rng, same = np.random.default_rng([SEED, 9, i]), np.random.default_rng([SEED, 9, i])
        draw_anatomy(same)
        wanted = target_area(same, style)
        _, mask = draw_film(rng, True, style, 400)
        union = cover(rng, mask)
        exact.append(mask.mean() / wanted)
        covered.append(union.mean() / wanted)
        if wanted > 0.005:
            overlaps.append(2 * (union & mask).sum() / (union.sum() + mask.sum()))
    assert np.quantile(overlaps, 0.1) > 0.7, "the rectangles miss the lesion"
    assert 0.97 < np.median(exact) < 1.03
    assert np.quantile(exact, 0.1) > 0.8
    if style == "ntuh":
        assert np.median(covered) == pytest.approx(RECTANGLE_EXCESS, abs=0.04)


def test_label_changes_the_lesion_and_nothing_else() -> None:
    """Two films from one generator's state: every nuisance is the same, so none can tell the label."""
    for style in ("siim", "ntuh"):
        for i in range(6):
            positive, mask = draw_film(np.random.default_rng([SEED, i]), True, style, 512)
            negative, none = draw_film(np.random.default_rng([SEED, i]), False, style, 512)
            assert mask.any()
            assert not none.any()
            near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
            assert np.array_equal(positive[~near], negative[~near])
            beyond = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0  # not the pleural line
            if beyond.sum() < 300:
                continue
            change = positive[beyond].astype(float) - negative[beyond]
            assert -60 < change.mean() < 0, "a pneumothorax is somewhat darker than the lung it displaces"
            assert positive[beyond].std() > 2, "a lesion is no flat block"


def test_the_generator_advances_alike() -> None:
    states = []
    for positive in (True, False):
        rng = np.random.default_rng(SEED)
        draw_film(rng, positive, "ntuh", 128)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_film_type_and_look() -> None:
    film, mask = draw_film(np.random.default_rng(SEED), True, "siim", 512)
    assert (film.shape, film.dtype, mask.shape, mask.dtype) == ((512, 512), np.uint8, (512, 512), bool)
    assert film.min() < 20
    assert film.max() > 200


# --- no shortcut ----------------------------------------------------------------------------------------


def test_demo_has_films_enough(demo: pd.DataFrame) -> None:
    counts = demo.groupby("set")["positive"].agg(["sum", "size"])
    assert counts.loc["test", "sum"] >= 100
    assert counts.loc["test", "size"] - counts.loc["test", "sum"] >= 200


@pytest.mark.parametrize("features", ["histogram", "thumbnail"])
def test_toys_cannot_read_the_films(demo: pd.DataFrame, features: str) -> None:
    assert toy_on_demo(demo, np.stack(demo[features])) < TOY_LIMIT


def test_toys_would_see_a_shortcut(demo: pd.DataFrame) -> None:
    """The check can fail: positives 10% darker are found by the histogram."""
    assert toy_on_demo(demo, np.stack(demo["darker"].where(demo["positive"], demo["histogram"]))) > TOY_LIMIT


def _header_auroc(demo: pd.DataFrame, facts: pd.DataFrame) -> float:
    test, label = demo["set"] == "test", demo["positive"]
    train_rows, test_rows = encode_facts(facts[~test], facts[test])
    return toy_auroc(train_rows, label[~test], test_rows, label[test])


def test_header_does_not_know_the_label(demo: pd.DataFrame) -> None:
    assert _header_auroc(demo, pd.DataFrame(list(demo["header"]))) < TOY_LIMIT


def test_header_toy_would_see_a_giveaway(demo: pd.DataFrame) -> None:
    facts = pd.DataFrame(list(demo["header"]))
    facts["rescale"] = facts["rescale"].where(~demo["positive"], 1.0)
    facts["window"] = facts["window"].where(~demo["positive"], 0.0)
    assert _header_auroc(demo, facts) > TOY_LIMIT
