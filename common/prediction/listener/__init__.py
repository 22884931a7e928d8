"""How do films come and findings go by DICOM? Received, kept on the disk, processed, sent on."""
