"""Write what the shipped model says of ten real knees, beside its card: `python tests/shipped_knees.py`.

Two of each grade, the first by name of the validation knees in `../shared/oai`, in float32. Whoever changes the model
writes them anew.
"""

import json
from pathlib import Path

from legradnet.grading.grader import Grader
from legradnet.models.named import SHIPPED_FOLDER

KNEES = SHIPPED_FOLDER / "knees.json"
FILMS = Path(__file__).parents[2] / "shared/oai"


def said_of_ten():
    """What `knees.json` should say."""
    names = [name for grade in range(5) for name in sorted((FILMS / "val" / str(grade)).glob("*.png"))[:2]]
    grader = Grader.load(device="cpu", precision="f32")
    return [
        {
            "filename": name.relative_to(FILMS).as_posix(),
            "label": int(name.parent.name),
            "grade": grading.grade,
            "probabilities": [round(float(probability), 4) for probability in grading.probabilities],
            "prediction_set": list(grading.prediction_set),
            "referred": grading.referred,
        }
        for name, grading in zip(names, grader.grade(list(names)), strict=True)
    ]


if __name__ == "__main__":
    said = {"source": "validation knees of the Osteoarthritis Initiative (Chen 2018)", "knees": said_of_ten()}
    KNEES.write_text(json.dumps(said, indent=2) + "\n")
