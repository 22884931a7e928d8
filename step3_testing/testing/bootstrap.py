"""Metrics of both systems on the test films, with 95% confidence intervals.

    cd step3_testing/testing
    python bootstrap.py                      both systems, 10,000 replicates, seed 0; a minute at most, no GPU
    python bootstrap.py --system vit         one system only
    python bootstrap.py --interval bca       bias-corrected and accelerated intervals
    python bootstrap.py --prevalence 0.05    PPV and NPV at this prevalence, too
    python bootstrap.py --all                print every table, not only the primary ones
    python bootstrap.py --replicates 2000 --seed 7
    python bootstrap.py --peer NAME=FOLDER   a system of others, too, by its predictions (docs/statistics.md)
    python bootstrap.py --write-plan plan.toml   begin a plan, before the first look at the results
    python bootstrap.py --plan plan.toml         state it in every output, with its verdicts

Reads what `bash inference.sh` left: result_eff/ and result_vit/, of each the tested cases (cases.csv) and
meta.json. Prints, for each system, against the masks (primary) and against the radiology reports, for the
two-stage decision (primary) and for stage 1 alone: detection (AUROC, AUPRC, sensitivity, specificity, PPV,
NPV, likelihood ratios, F1, accuracy), calibration (Brier score, slope, intercept), segmentation (three Dice,
IoU, HD95, NSD), the area shown, and the confusion counts. common/statistics/metrics.py defines each.

Writes metrics.csv, one row an estimate, metrics.json, the same and where it comes from, cohort.csv, which
describes training and test films, and report.html. Each run replaces them; looks.json counts the looks at the
same test films. metrics.csv holds every stratum (all films, small, medium and large lesions, sex, age, view,
device), of which the terminal shows the main ones. Columns:

    system, reference, decision, stratum, metric
    n                   films that the estimate is over
    estimate            on the full sample
    ci_low, ci_high     95% interval; empty where there is none
    interval            percentile, bca (bootstrap of patients); wilson (proportions, and others at 0 or 1),
                        koopman (ratios), tango (differences of proportions of the same films), newcombe (of
                        other films, of groups), the four at the effective number of films where patients
                        gave several; delong, newcombe (AUROCs); delong (their differences);
                        obuchowski-rockette (means of readers); or none
    note                such as "conditional on the case mix", "too few films for an interval"
    plan                date and hash of the plan, and whether it changed after the first look

Metrics of the probability and of the map do not depend on the decision: they are repeated, the same, under
both, so that a filter on the decision always finds them.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.bootstrap(__doc__))
