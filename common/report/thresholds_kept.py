"""Whether the thresholds that were chosen on training films do on test films what they were chosen for.

They are chosen on single folds' probabilities, each of a film that the fold did not train on, and applied to
the mean of five, which is rarely as extreme as one: near 0 or 1 the mean is another test than a single fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.files import digest, read_json
from common.inference.result_files import Result
from common.inference.threshold_rules import extreme
from common.paths import thresholds_file
from common.report.estimates import Row, estimate_text, films_text
from common.stages import THRESHOLDS_COMMAND

_AVERAGING = 0.05  # a rate of the mean of the folds less that of single folds, on the same films
_DRIFT = 0.1  # a rate on the test films less that out of fold
_KINDS = (("the mean of the folds, which decides", ""), ("single folds", "_single_folds"),
          ("a majority of the folds", "_majority"))  # fmt: skip


def tested_thresholds(system: str, result: Result) -> dict[str, Any] | None:
    """What the thresholds file tells; None where it is absent or holds other thresholds than were tested."""
    path = thresholds_file(system)
    if not path.is_file():
        return None
    content = read_json(path, THRESHOLDS_COMMAND)
    meta = result.meta
    tested = [meta["cls_threshold"], meta["seg_threshold"], meta["weights"]]
    if [content.get(key) for key in ("cls_threshold", "seg_threshold", "made_from")] != tested:
        return None
    # what is nested (other rules, stability, hashes) stays in the file, whose hash is given
    told = {key: value for key, value in content.items() if not isinstance(value, dict | list)}
    return {"SHA-256 of the file": digest(path.read_bytes()), **told}


def threshold_sentences(
    rows: Sequence[Row], system: str, threshold: float, chosen: Mapping[str, Any] | None
) -> list[str]:
    """What the probability's threshold does on the test films, under `mask` and by stage 1 alone.

    Args:
        rows: Rows of the metrics, of this system among others.
        system: System.
        threshold: Its threshold, 0-1.
        chosen: What `tested_thresholds` gave.

    Returns:
        Sentences, warnings last, each of which begins with `Warning:`; none where no fold's probability is
        known.
    """
    found = {
        row["metric"]: row
        for row in rows
        if (row["system"], row["reference"], row["decision"], row["stratum"])
        == (system, "mask", "stage_1", "all")
    }
    known = {
        title: [
            row for rate in ("sensitivity", "specificity") if (row := found.get(rate + kind)) and row["n"]
        ]
        for title, kind in _KINDS
    }
    if any(len(each) < 2 for each in known.values()):
        return []
    sentences = [
        f"Stage 1 at the threshold {threshold:.4g}, sensitivity and specificity: "
        + "; ".join(f"{title}, {' and '.join(map(_text, each))}" for title, each in known.items())
        + "."
    ]
    warnings = [extreme(threshold)]
    mean, single, _ = ([row["estimate"] for row in each] for each in known.values())
    rates = ("sensitivity", "specificity")
    warnings += [
        f"averaging the folds moves {rate} by {one - other:+.3f}: the threshold was chosen on single folds"
        for rate, one, other in zip(rates, mean, single, strict=True)
        if abs(one - other) >= _AVERAGING
    ]
    if chosen is not None and {"tpr", "fpr"} <= chosen.keys():
        before = chosen["tpr"], 1 - chosen["fpr"]
        sentences.append(
            f"Out of fold, on the training films, they were {before[0]:.3f} and {before[1]:.3f}."
        )
        warnings += [
            f"{rate} is {one - other:+.3f} from what it was out of fold"
            for rate, one, other in zip(rates, mean, before, strict=True)
            if abs(one - other) >= _DRIFT
        ]
    return sentences + [f"Warning: {each}." for each in warnings if each]


def _text(row: Row) -> str:
    return f"{estimate_text(row)} n={films_text(row)}"
