"""The numbers of training: one file a preset, which a clinician can read beside the paper."""
