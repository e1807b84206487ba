"""The config of legradnet-calibrate on generated knees."""

from evaluations import config_of

SITE = {"data": {"source": "synthetic", "count": 80, "seed": 77}}


def site_config(checkpoint, output, **changes):
    """The config of legradnet-calibrate as plain values, on 80 generated knees."""
    changes = {**SITE, **changes}
    data = config_of("", data={**SITE["data"], **changes.pop("data")})["data"]
    fixed = {"checkpoint": str(checkpoint), "output": str(output), "data": data, "resamples": 100, "precision": "f32"}
    return fixed | changes
