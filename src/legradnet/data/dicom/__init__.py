"""DICOM films."""
