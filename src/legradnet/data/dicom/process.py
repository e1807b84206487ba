"""One DICOM file -> one film. No element that names a patient is loaded but the id, of which a digest alone is given.

After decoding, in the order of PS3.4 N.2: Modality LUT or rescale, VOI LUT or window (PS3.3 C.11.1, C.11.2), inversion.
What the data contradict is ignored and told (`remarks`). Without VOI, 8-bit values stay as they are and deeper ones are
stretched as in other formats. Padding is black. "PS3" is the DICOM standard,
https://dicom.nema.org/medical/dicom/current.
"""

import io
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from legradnet.data.depth import is_depth_kept
from legradnet.data.dicom.film import film_of_dicom, open_dicom, patient_of, side_of
from legradnet.data.film import NO_PIXELS, Allow, Film, ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PIXELS_PER_SECOND = 20_000_000  # that become gray
DECODED_PER_SECOND = 5_000_000, 400_000  # pixels, and bytes of them: a decoder of little data has little to do
DECODERS = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "pillow")  # packages


def read_dicom(file: BinaryIO, allow: Allow | None) -> Film:
    """Read the first frame of an open DICOM file; without `allow`, check its header and give no pixels.

    Raises:
        ImageError: Whatever is wrong with the file, without its path and without any value of its elements but sizes.
    """
    import pydicom
    import pydicom.pixels

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        header, pixels, vr = open_dicom(file)
        if allow is None:
            return replace(NO_PIXELS, side=side_of(header), patient=patient_of(header))
        count = header.Rows * header.Columns
        pixels_per_second, bytes_per_second = DECODED_PER_SECOND
        seconds = min(count / pixels_per_second, size / bytes_per_second)
        allow(count / PIXELS_PER_SECOND + seconds, count * _bytes_per_pixel(header))
        return replace(film_of_dicom(header, pixels, vr), patient=patient_of(header))
    except (ImageError, MemoryError):
        raise
    except OSError as error:
        raise ImageError(error.strerror or "cannot be read") from None
    except Exception as error:  # its text may quote a patient's data
        raise ImageError(f"cannot be read as DICOM, damaged or unusual ({type(error).__name__})") from None


def _bytes_per_pixel(header: "Dataset") -> int:
    """Memory that the decoders and we take at most, measured with each of them."""
    if header.SamplesPerPixel == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
        return 32 if header.BitsAllocated <= 8 else 56
    return (16 if header.BitsAllocated <= 16 else 64) + (6 if is_depth_kept() else 0)
