"""Against DCMTK's dcm2pnm: another reader, of other people, sees the same film in the same bytes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dicom_films import KNEE, written
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from hostile_films import dicom
from legradnet.data.images import read_film

pytestmark = [
    pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs dcm2pnm of DCMTK"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
]

NOISE = np.random.default_rng(1).integers(0, 16, KNEE.shape)
PIXELS = (KNEE.astype(np.uint16) * 16 + NOISE).astype(np.uint16)  # 12 bits in 16
OVERLAY = (KNEE > 128).astype(np.uint16)
WINDOW = {"BitsStored": 12, "WindowCenter": "2048", "WindowWidth": "4096"}
SIGNED = PIXELS.astype(np.int16) - 2048


def seen_by_dcmtk(path: Path, *options: str) -> np.ndarray:
    picture = path.with_suffix(".pgm")
    subprocess.run(["dcm2pnm", "--quiet", "--no-overlays", *options, path, picture], check=True, timeout=60)
    return np.array(Image.open(picture)).astype(int)


def table(first: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 12])
    item.add_new("LUTData", "OW", (4095 * (np.arange(4096) / 4095) ** 0.5).astype("<u2").tobytes())
    return Sequence([item])


FILMS = {
    "a window": (PIXELS, {}),
    "a narrow window": (PIXELS, {"WindowCenter": "1500", "WindowWidth": "900"}),
    "a sigmoid": (PIXELS, {"VOILUTFunction": "SIGMOID"}),
    "rescaled": (PIXELS, {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "3000"}),
    "signed": (SIGNED, {"WindowCenter": "0"}),
    "signed, cut to its bits": ((SIGNED.view(np.uint16) & 4095).view(np.int16), {"WindowCenter": "0"}),
    "high bit 13": (PIXELS << 2, {"HighBit": 13}),
    "high bit 15": (PIXELS << 4, {"HighBit": 15}),
    "an overlay above": (PIXELS | OVERLAY << 14, {}),
    "overlays around": (PIXELS << 2 | OVERLAY << 15 | OVERLAY, {"HighBit": 13}),
    "MONOCHROME1": (PIXELS, {"PhotometricInterpretation": "MONOCHROME1"}),
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_windowed_film_is_the_same(tmp_path, name, syntax):
    pixels, elements = FILMS[name]
    path = written(tmp_path / "a.dcm", dicom(pixels, syntax, **{**WINDOW, **elements}))
    assert np.abs(read_film(path).gray - seen_by_dcmtk(path, "+Wi", "1")).max() <= 1


@pytest.mark.parametrize(("pixels", "first"), [(PIXELS, 0), (SIGNED, -2048)])
def test_a_looked_up_film_is_the_same(tmp_path, pixels, first):
    path = written(tmp_path / "a.dcm", dicom(pixels, BitsStored=12, VOILUTSequence=table(first)))
    assert np.abs(read_film(path).gray - seen_by_dcmtk(path, "+Wl", "1")).max() <= 1


def test_the_second_window_is_the_one_that_dcmtk_knows_by_that_number(tmp_path):
    windows = {"WindowCenter": ["30000", "2000"], "WindowWidth": ["9", "3000"]}
    path = written(tmp_path / "a.dcm", dicom(PIXELS, BitsStored=12, **windows))
    assert np.abs(read_film(path).gray - seen_by_dcmtk(path, "+Wi", "2")).max() <= 1
