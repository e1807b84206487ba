"""The whole round with a real Orthanc: a film goes in by `storescu`, report and picture come back into its study."""

import shutil
import subprocess

import pytest
from knee_films import SECRETS, both_knees, faults, film
from orthanc import Orthanc, find_orthanc, free_port

pytest.importorskip("pynetdicom", reason="the extra [hospital] is not installed")
from nodes import running, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_orthanc() is None, reason="Orthanc is not installed"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed"),
]


def test_report_and_picture_come_back_into_the_study_of_a_film_sent_to_orthanc(best, tmp_path, caplog):
    port = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", port)
    how = {"port": port, "callers": ["ORTHANC"], "send_to": f"ORTHANC@127.0.0.1:{orthanc.dicom}", "film": "auto"}
    orthanc.start()
    try:
        with running(tmp_path / "queue", best, orthanc.dicom, **how):
            films = [film(tmp_path / "knee.dcm"), both_knees(tmp_path / "both.dcm", SOPInstanceUID="1.2.826.77.9")]
            sent = ["storescu", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom), *map(str, films)]
            subprocess.run(sent, check=True, timeout=60, capture_output=True)
            wait_for(lambda: len(orthanc.get("/instances")) == 6)
        (study,) = orthanc.get("/studies")
        (patient,) = orthanc.get("/patients")
        assert orthanc.get(f"/patients/{patient}")["MainDicomTags"]["PatientID"] == "SECRET-77"
        series = orthanc.get(f"/studies/{study}/series")
        assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["DX", "OT", "OT", "SR", "SR"]
        for one in series:
            if one["MainDicomTags"]["Modality"] == "DX":
                continue
            (instance,) = one["Instances"]
            copy = tmp_path / f"{instance}.dcm"
            copy.write_bytes(orthanc.get(f"/instances/{instance}/file"))
            assert not faults(copy)
            tags = orthanc.get(f"/instances/{instance}/simplified-tags")
            assert tags["SeriesDescription"] == "Research use only, not a medical device"
            if one["MainDicomTags"]["Modality"] == "SR":
                assert tags["VerificationFlag"] == "UNVERIFIED" and tags["ContentSequence"]
        assert not [secret for secret in SECRETS[:5] if secret in caplog.text]
    finally:
        orthanc.stop()
