"""What the search for metal counts with, against SciPy's slower filters."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from legradnet.localise.metal import _largest, _rim

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))


@given(SIZES.flatmap(lambda size: arrays.arrays(np.uint8, size)), st.sampled_from([5, 13]))
def test_the_largest_gray_around_a_pixel_is_that_of_scipy_at_the_edges_too(gray, side):
    assert np.array_equal(_largest(gray, side), ndimage.maximum_filter(gray, side))
    assert np.array_equal(255 - _largest(~gray, side), ndimage.minimum_filter(gray, side))


@given(SIZES.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_what_no_pixel_outside_is_near_is_what_two_erosions_leave(own):
    left = ndimage.binary_erosion(own, np.ones((3, 3)), iterations=2, border_value=1)
    assert np.array_equal(own & (_largest(~own, 5) == 0), left)


@given(SIZES.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_a_rim_is_what_erosion_takes(above):
    assert np.array_equal(_rim(above), above & ~ndimage.binary_erosion(above, border_value=1))
