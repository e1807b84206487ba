"""A model calibrated at a site, which no test may change."""

import pytest

from legradnet.site.run import calibrate
from site_models import site_config
from small_runs import made_once


@pytest.fixture(scope="session")
def site(best, tmp_path_factory):
    """The small trained network at a site of 80 generated knees."""
    return made_once(tmp_path_factory, "site", lambda folder: calibrate(site_config(best, folder)))
