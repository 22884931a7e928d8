"""Figures of both systems on the test films, with 95% confidence intervals.

    cd step3_testing/testing
    python bootstrap.py                      both systems, 10,000 replicates, seed 0; seconds, no GPU
    python bootstrap.py --system vit         one system only
    python bootstrap.py --replicates 2000 --seed 7

Reads what `bash inference.sh` left: result_eff/ and result_vit/, of each cases.csv and meta.json. Prints, for
each system, AUROC, AUPRC, sensitivity, specificity, PPV, NPV, three Dice and the confusion counts, overall
and by lesion size, against the masks (primary) and against the radiology reports, for the two-stage decision
(primary) and for stage 1 alone. Writes the same to metrics.csv, one row a figure
(system, reference, decision, stratum, metric, n, estimate, ci_low, ci_high; what is not estimable is empty),
and to metrics.json with where it comes from. Each run replaces both.

AUROC, AUPRC and dice_segmentation do not depend on the decision: they are repeated, the same, under both
decisions, so that a filter on the decision always finds them. tp, fp, fn and tn have no interval.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common.evaluation.report import main
    from common.refusal import run_script

    run_script(lambda: main(__doc__))
