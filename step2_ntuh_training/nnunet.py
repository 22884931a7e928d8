"""Write the hospital's prepared films as a dataset of nnU-Net v2, with the same five folds.

    bash nnunet.sh FOLDER                     films of 512 x 512 pixels, as the published networks see them
    bash nnunet.sh FOLDER --image-size 1024   as they were prepared

nnU-Net, a general method of segmentation, can then be trained on the very same split:

    export nnUNet_raw=FOLDER/nnUNet_raw nnUNet_preprocessed=FOLDER/nnUNet_preprocessed
    export nnUNet_results=FOLDER/nnUNet_results
    nnUNetv2_plan_and_preprocess -d 501 -c 2d
    nnUNetv2_train 501 2d 0                   and so folds 1 to 4

Its predictions of the test films come back into the tables beside our systems:

    nnUNetv2_predict -d 501 -c 2d -f 0 1 2 3 4 --save_probabilities -o PREDICTIONS \\
        -i FOLDER/nnUNet_raw/Dataset501_Pneumothorax/imagesTs
    bash nnunet.sh PEER --collect PREDICTIONS
    cd ../step3_testing/testing && python bootstrap.py --peer nnUNet=PEER

The folds lie where nnU-Net looks for them (splits_final.json). Test films are written without their masks.
Files are named by pseudonyms. Left out, and counted: training films that are positive by report and have no
mask, whose lesion nobody drew.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.export_nnunet(__doc__))
