"""Where a model's card answers what CLAIM 2024 and TRIPOD+AI ask, and what of it is not available.

CLAIM: Tejani et al. 2024, doi:10.1148/ryai.240300, 44 items. TRIPOD+AI: Collins et al. 2024,
doi:10.1136/bmj-2023-078378, 27 items. What an item asks is in our words, and shorter.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

NOT_AVAILABLE = "not available"
PATIENTS = ("age", "sex", "body mass index", "centre")  # by which is measured where a column of the films tells it

_OTHER_NAMES = {"body mass index": ("bmi",), "centre": ("center", "site", "hospital"), "sex": ("gender",)}

# what answers an item: titles of the card's sections
USE, DATA, STANDARD, WEIGHTS = "Use", "Data", "Reference standard", "Starting weights"
MODEL, TRAINING, MEASURED, RUN = "Model", "Training", "Measured on", "This evaluation"
NUMBERS, SUBGROUPS, GRADES = "Numbers", "Subgroups", "By true grade"
CALIBRATION, REFERRAL, JOINT = "Calibration", "Sets and referral", "Joint blanked out"
FAILURES, LIMITS, OTHERS, LICENCE = "Known failures", "Limits", "Other films", "Licence and thanks"


class Item(NamedTuple):
    """A question of the lists.

    Attributes:
        claim: Its number in CLAIM 2024; "" if it is not there.
        tripod: Its numbers in TRIPOD+AI, "3a, 3b"; "" if it is not there.
        asks: What is asked.
        sections: That answer it, if they are there.
        words: What answers it for every model, or stands behind the sections.
        of_patients: Whether it asks about `PATIENTS`, which the side of a knee is not.
    """

    claim: str
    tripod: str
    asks: str
    sections: tuple[str, ...] = ()
    words: str = ""
    of_patients: bool = False

    @property
    def names(self) -> list[str]:
        """What a file of facts calls it: `CLAIM 7`, `TRIPOD+AI 5a`."""
        claim = [f"CLAIM {self.claim}"] if self.claim else []
        return claim + [f"TRIPOD+AI {number}" for number in filter(None, self.tripod.split(", "))]


ITEMS = (
    Item("1", "1", "What kind of study and technique", (), "a trained network is measured on labelled radiographs"),
    Item("2", "2", "A summary", (NUMBERS,)),
    Item("3", "3a, 3b", "Background, intended use and role, for whom", (USE,)),
    Item("", "3c", "Known inequalities in health"),
    Item("4", "4", "Aims", (USE,)),
    Item("5", "", "Prospective or retrospective"),
    Item("6", "", "Goal of the study", (USE,), "to measure a trained network"),
    Item("7", "5a", "Sources of the data", (DATA,)),
    Item("", "5b", "Dates"),
    Item("", "6a", "Setting and centres"),
    Item("8", "6b", "Who was included"),
    Item("", "6c", "Treatments"),
    Item("9", "7", "How films were prepared", (MODEL,)),
    Item("10", "", "Which part of the data was taken", (MEASURED, TRAINING)),
    Item("11", "", "How films were de-identified"),
    Item("12", "11", "Missing data", (), "a film that can't be read is an error, or is left out and counted"),
    Item("13", "", "How films were taken"),
    Item("14", "8a", "Reference standard", (STANDARD,)),
    Item("15", "", "Why that standard", (STANDARD,)),
    Item("16", "8b", "Who read the films", (STANDARD,)),
    Item("17", "", "Who graded the films that were measured", (STANDARD,)),
    Item("", "8c", "What the readers did not know"),
    Item("18", "", "How far readers agree"),
    Item("", "9a, 9b, 9c", "Predictors", (), "the film's pixels and its side, nothing else of the patient"),
    Item("19", "12a", "How films were split", (DATA, MEASURED)),
    Item("20", "", "What is on one side of every split", (), "all films of a patient, where patients are known"),
    Item("21", "10", "Number of films, and why so many", (MEASURED,)),
    Item("22", "12b, 12c, 22", "The model, so that it can be used", (MODEL,), "and its weights"),
    Item("23", "", "Software", (RUN,)),
    Item("24", "", "Weights at the start", (WEIGHTS,)),
    Item("25", "", "Training", (TRAINING,)),
    Item("", "13", "Rare and frequent grades", (TRAINING, MEASURED)),
    Item("26", "", "How the final model was chosen", (TRAINING,)),
    Item("27", "", "Ensembling", (MODEL,)),
    Item("28", "12e", "Measures", (NUMBERS,)),
    Item("29", "", "Uncertainty of the numbers", (NUMBERS,)),
    Item("30", "12d, 23b", "Robustness, and differences between groups", (SUBGROUPS, JOINT, OTHERS)),
    Item("31", "", "Explanations", (), "by `legradnet-explain`; not part of this evaluation"),
    Item("32", "", "Measured on internal data", (MEASURED,)),
    Item("33", "16", "Measured on data from elsewhere"),
    Item("", "12f, 24", "Updating of the model", (), "none"),
    Item("", "12g", "How predictions are computed", (MODEL, CALIBRATION)),
    Item("", "14", "Fairness", (SUBGROUPS,), of_patients=True),
    Item("", "15", "What the model says", (REFERRAL,), "a grade, probabilities, a set of grades, whether to refer"),
    Item("34", "18d", "Registration"),
    Item("", "17", "Approval by an ethics committee"),
    Item("35", "20a", "Numbers included and left out", (MEASURED,)),
    Item("36", "20b, 20c", "Who the patients are, in each split", (SUBGROUPS,), of_patients=True),
    Item("37", "23a", "Performance with its uncertainty", (NUMBERS, SUBGROUPS, GRADES)),
    Item("38", "21", "Diagnostic performance and numbers behind it", (NUMBERS, GRADES)),
    Item("39", "", "What goes wrong", (FAILURES,)),
    Item("40", "26", "Limits", (LIMITS,)),
    Item("41", "25", "What it means for practice", (USE,)),
    Item("", "27a", "Poor or missing input", (REFERRAL,), "what can't be read is an error, what looks odd is referred"),
    Item("", "27b", "What users have to do and know", (USE,)),
    Item("", "27c", "What comes next", (LIMITS,)),
    Item("42", "18c", "Protocol"),
    Item("43", "18e, 18f", "Where software, model and data are", (LICENCE, DATA)),
    Item("44", "18a", "Funding"),
    Item("", "18b", "Conflicts of interest"),
    Item("", "19", "Part of patients and public"),
)  # fmt: skip


class Answer(NamedTuple):
    """Where an item is answered: sections of the card, and words; neither = not available."""

    item: Item
    sections: tuple[str, ...]
    words: str


def measured(subgroups: object, joint_masked: object) -> set[str]:
    """Titles of the sections that come from an evaluation's numbers, with those that it may lack."""
    always = {NUMBERS, GRADES, CALIBRATION, REFERRAL, FAILURES}
    return always | ({SUBGROUPS} if subgroups else set()) | ({JOINT} if joint_masked else set())


def answers(there: Collection[str], columns: Collection[str], own: Mapping[str, str]) -> list[Answer]:
    """What a card with some sections answers.

    Args:
        there: Titles of its sections.
        columns: What the films were measured by.
        own: Answers of its authors, by the item's name.
    """
    measured_by = {column.lower() for column in columns}
    unknown = [name for name in PATIENTS if not measured_by & {name, *_OTHER_NAMES.get(name, ())}]
    lacking = f"{NOT_AVAILABLE}: {', '.join(unknown)}" if unknown else ""
    found = []
    for item in ITEMS:
        words = next((own[name] for name in item.names if name in own), item.words)
        sections = tuple(title for title in item.sections if title in there)
        if item.of_patients:
            words, sections = words or lacking, sections if len(unknown) < len(PATIENTS) else ()
        found.append(Answer(item, sections, words))
    return found
