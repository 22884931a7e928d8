"""A trained system on new films: findings, pictures and DICOM objects."""
