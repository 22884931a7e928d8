"""The checklist of a paper on artificial intelligence in imaging, filled with what the run knows.

Numbered as the 2024 update of CLAIM (Tejani et al., Radiology: Artificial Intelligence 2024;6:e240300), with
its terms (reference standard, internal and external testing), in our own words. What only the authors know is
left to them, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.inference.result_files import Result
from common.stages import N_FOLDS, STUDENTS
from common.statistics.strata import SIZE_EDGES


@dataclass(frozen=True)
class Item:
    """An item of the checklist.

    Attributes:
        number: Number of the item in CLAIM 2024.
        section: Section of the paper.
        asked: What the paper should tell.
        known: Text that the run can fill in; empty where it knows nothing.
        authors: Text for what is left to the authors; empty where nothing is.
    """

    number: int
    section: str
    asked: str
    known: str = ""
    authors: str = ""


@dataclass(frozen=True)
class Known:
    """What the checklist is filled from.

    Attributes:
        results: Results on the test films, by system.
        flow: flow.json of the test films; empty where it is not there.
        estimates: Main metrics as text, by system.
        metrics: Titles of the metrics in the tables.
        groups: Strata in the tables beside `all`.
        statistics: How intervals were made.
        out_of_fold: Text about the thresholds file, by system.
        training_films: Table 1 tells of the training films, too.
        planned: What is said of the plan of the test.
    """

    results: Mapping[str, Result]
    flow: Mapping[str, Any]
    estimates: Mapping[str, str]
    metrics: list[str]
    groups: list[str]
    statistics: str
    out_of_fold: Mapping[str, str]
    training_films: bool = False
    planned: Sequence[str] = ()


def checklist(known: Known) -> list[Item]:
    """The 44 items, in order."""
    answers = {**_data(known), **_model(known), **_evaluation(known)}
    return [
        Item(number, section, asked, answers.get(number, ""), authors)
        for number, (section, asked, authors) in enumerate(_ITEMS, start=1)
    ]


def _data(known: Known) -> dict[int, str]:
    cases = next(iter(known.results.values())).cases
    flow = known.flow
    sizes = " and ".join(sorted({str(result.meta["image_size"]) for result in known.results.values()}))
    left_out = [*flow.get("excluded", {}).items(), *flow.get("rejected", {}).items()]
    masked, without = int(cases.has_mask.sum()), int((cases.report & ~cases.has_mask).sum())
    unknown = {
        "age": int(np.isnan(cases.age).sum()),
        "sex": int((cases.sex == "").sum()),
        "pixel spacing": int((~cases.in_mm).sum()),
        "label (in no metric)": flow.get("unlabelled", 0),
    }
    exams = flow.get("grouped_by_exam", 0)
    return {
        5: "Stored films were scored after the event.",
        7: f"{len(cases)} test films of {len(set(cases.patient.tolist()))} patients; hash in Provenance.",
        8: "Left out, with the number of films: "
        + ("; ".join(f"{reason}: {count}" for reason, count in left_out) if left_out else "none.")
        if flow
        else "",
        9: f"Every film to 8 bit grey levels, stretched to 1024 x 1024 and worked on at {sizes} pixels.",
        10: "No subset: every prepared film with a label is in the tables.",
        11: "Films, patients and studies carry pseudonyms (keyed hashes, HMAC-SHA-256), unless "
        "--keep-identifiers was given when they were prepared.",
        12: "Kept and counted. Films of unknown "
        + ", ".join(f"{name}: {count}" for name, count in unknown.items())
        + ".",
        13: "Radiographs of the chest; their views and the makers of the devices are in Table 1.",
        14: f"Two references: an annotated lesion (primary; {masked} films) and the "
        f"radiology report ({int(cases.report.sum())} films, {without} of them without an annotated lesion).",
        19: f"Training and test films are two separate sets; the training films are in {N_FOLDS} folds.",
        20: "By patient: folds keep patients together, and a training patient among the test films stops the "
        "test."
        + (f" {exams} test films had no patient number and were grouped by exam." if exams else "")
        + f" {_pretraining([result.meta.get('patient_table') for result in known.results.values()])}",
        21: " ".join([f"{masked} films positive by mask, {len(cases) - masked} negative.", *known.planned]),
    }


def _pretraining(tables: list[dict[str, Any] | None]) -> str:
    """Whether the SIIM-ACR films of a patient were kept on one side, from what each system was trained by."""
    given = [table for table in tables if table]
    if len(given) < len(tables):
        return (
            "In pre-training on SIIM-ACR, films of one patient may lie in training and tuning (validation): "
            "no table of patients was given."
        )
    least = min(given, key=lambda table: table["films"])
    return (
        f"In pre-training on SIIM-ACR, a table kept the films of each patient on one side ({least['films']} "
        f"films of {least['patients']} patients; {least['films_without_entry']} films without an entry)."
    )


def _model(known: Known) -> dict[int, str]:
    systems = ", ".join(known.results)
    presets = ", ".join(sorted({str(result.meta["preset"]) for result in known.results.values()}))
    return {
        22: f"Systems: {systems}. Each decides by a classification network, then outlines by a segmentation "
        "network; both give one map or probability a film.",
        23: "Versions are in Provenance.",
        24: "Networks start from those trained on SIIM-ACR films; each weights file holds its lineage.",
        25: f"Recipe: based on {presets}. All settings are in recipe.toml of each training run.",
        26: "Of each fold, the epoch with the best score on the held-out fold"
        + (", and of a student the last epoch. " if STUDENTS.keys() & known.results.keys() else ". ")
        + " ".join(f"{system}: {text}" for system, text in known.out_of_fold.items()),
        27: " ".join(
            f"{system}: one network a task, which learnt from the {N_FOLDS} folds' of {STUDENTS[system]}."
            if system in STUDENTS
            else f"{system}: mean probability and mean map of {N_FOLDS} folds."
            for system in known.results
        ),
    }


def _evaluation(known: Known) -> dict[int, str]:
    first = next(iter(known.results.values()))
    failures = "; ".join(
        f"{system}: {int((cases.has_mask & ~cases.two_stage).sum())} missed, "
        f"{int((~cases.has_mask & cases.two_stage).sum())} false alarms"
        for system, cases in ((s, r.cases) for s, r in known.results.items())
    )
    estimates = "; ".join(f"{system}: {text}" for system, text in known.estimates.items() if text)
    return {
        28: ", ".join(known.metrics) + "." if known.metrics else "",
        29: known.statistics,
        30: f"Metrics by {', '.join(known.groups)}; and the spread of the folds. Lesion size is lesion area "
        f"over film area: small < {SIZE_EDGES[0]:g} ≤ medium < {SIZE_EDGES[1]:g} ≤ large."
        if known.groups
        else "",
        31: "The system shows the outline that made it call a film positive; see Films.",
        32: f"On {len(first.cases)} films of the source that the training films are from, held apart; no "
        "weights and no thresholds were chosen on them.",
        35: "Drawn in Flow of films." if known.flow else "",
        36: "Of training and test films, each patient counted once: Table 1 and cohort.csv."
        if known.training_films
        else "Of the test films: Table 1 and cohort.csv.",
        37: estimates,
        38: "Every estimate in the tables has its 95% confidence interval and n, or says that it has none.",
        39: f"{failures}. The worst are shown in Films.",
        41: "Research use only. Not a medical device.",
    }


_ITEMS = (
    ("Title", "The title names the kind of artificial intelligence", "all"),
    (
        "Abstract",
        "A structured summary: design, films, partitions, statistics, results, what is available",
        "all",
    ),
    ("Introduction", "Background, practice today, and the intended use and role of the system", "all"),
    ("Introduction", "Aims and hypotheses", "all"),
    ("Study design", "Prospective or retrospective", "how the films were collected"),
    ("Study design", "Goal of the study", "all"),
    ("Data", "Where the data come from", "hospitals, dates, consent and ethics"),
    (
        "Data",
        "Which films and patients were included and excluded, and how they were found",
        "setting and dates",
    ),
    ("Data", "How data were processed before use", ""),
    ("Data", "Whether only parts of the data were used, and who chose them", ""),
    ("Data", "How identities were removed", "what was removed before the export"),
    ("Data", "How missing data were dealt with", ""),
    ("Data", "How the images were acquired", "protocol, and devices beside their maker"),
    ("Reference standard", "How it was obtained, so that others can repeat it", "how masks were drawn"),
    ("Reference standard", "Why this reference standard was chosen", "all"),
    ("Reference standard", "Who annotated, and their training", "all"),
    ("Reference standard", "How the test films were annotated, with which tools", "all"),
    ("Reference standard", "Agreement between and within annotators, and how it was settled", "all"),
    ("Partitions", "How films were assigned to training, tuning and testing", "the dates of each set"),
    ("Partitions", "The level at which the partitions are disjoint", ""),
    ("Testing data", "Intended sample size and how it was reached", "the reason"),
    ("Model", "The model, its inputs, outputs and layers", "a figure of the networks"),
    ("Model", "Libraries and their versions", ""),
    ("Model", "What the parameters start from", ""),
    ("Training", "Training: augmentation, hyperparameters, number of models", "a summary"),
    ("Training", "How the final model was chosen", ""),
    ("Training", "How models were combined", ""),
    ("Evaluation", "Measures of performance", ""),
    ("Evaluation", "Measures of uncertainty and tests of significance", ""),
    ("Evaluation", "Robustness or sensitivity analysis", "further analyses"),
    ("Evaluation", "Means of explanation, and whether they were tested", ""),
    ("Evaluation", "Internal testing: on data from where the training data are from", ""),
    ("Evaluation", "External testing: on data from elsewhere, or why there is none", "all"),
    ("Evaluation", "Registration, where it is a clinical trial", "all"),
    ("Results, data", "Numbers of patients or films included and excluded", ""),
    ("Results, data", "Demographic and clinical characteristics of each partition", "clinical ones"),
    ("Results, model", "Performance against the reference standard, on all partitions", ""),
    ("Results, model", "Estimates of accuracy and their precision", ""),
    ("Results, model", "What went wrong in films that were called wrongly", "what readers see in them"),
    ("Discussion", "Limitations: bias, uncertainty, how far results carry over", "all"),
    ("Discussion", "Meaning for practice, and intended use", "all"),
    ("Other", "Where the full protocol and technical details can be found", "all"),
    ("Other", "Whether software, model and data can be had, and how", "all"),
    ("Other", "Funding, and the role of funders", "all"),
)
