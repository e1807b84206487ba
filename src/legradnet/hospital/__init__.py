"""Into a hospital's systems: structured reports, secondary captures, FHIR, and a DICOM node that sends them."""
