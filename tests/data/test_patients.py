import pytest

from hostile_films import dicom, dicom_bytes
from legradnet.data import patients
from legradnet.data.images import patient_in, read_film
from legradnet.data.synthetic import synthesize

KNEE = synthesize(1, size=64, seed=2)[0][0]


def test_a_digest_tells_patients_apart_only_as_long_as_its_key_is_known(monkeypatch):
    monkeypatch.setattr(patients, "_keys", [b"1" * 32])
    one, other, elsewhere = (patients.digest_of(*patient) for patient in (("7",), ("8",), ("7", "other hospital")))
    assert len({one, other, elsewhere}) == 3 and patients.digest_of(" 7 ") == one
    patients.take_key("00" * 32)
    assert patients.digest_of("7") != one


@pytest.mark.parametrize(
    "placeholder", ["", None, "0", "0000", "ANON", "anonymous", "Anonymized", "UNKNOWN", "-", "xxx"]
)
def test_what_is_put_in_a_names_place_is_no_patient(placeholder):
    assert patients.digest_of(placeholder) == ""


def test_a_reader_in_another_process_hashes_with_the_key_of_who_asks(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(dicom(KNEE, PatientID="PID-7")))
    assert patient_in(tmp_path / "a.dcm") == read_film(tmp_path / "a.dcm").patient == patients.digest_of("PID-7") != ""
    assert "PID-7" not in repr(read_film(tmp_path / "a.dcm"))
