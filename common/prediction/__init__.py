"""A trained system on new films: findings, pictures and DICOM objects."""

RESEARCH_ONLY = "research use only, not a medical device"
