"""What no evaluation can know of a model: where films and first weights are from, what training cost, what it can't do.

One small YAML file, `facts=` of `legradnet-evaluate`, written by whoever trained the model.
"""

from pathlib import Path
from typing import Annotated

import yaml  # type: ignore[import-untyped] # comes with OmegaConf
from pydantic import AfterValidator, Field

from legradnet.errors import UserError
from legradnet.evaluation.checklist import ITEMS
from legradnet.files import NOT_YAML, not_yaml
from legradnet.settings import Settings, checked

FACTS = "facts.yaml"
_MOST_BYTES = 1_000_000
_INTENDED = (
    "research on grading osteoarthritis of single knees on plain radiographs",
    "a second reading, never the only one",
)
_NOT_FOR = (
    "diagnosis without a clinician: it is no medical device",
    "films unlike those it was trained on: other joints, other views, replaced joints, children",
)


def _known_items(answers: dict[str, str]) -> dict[str, str]:
    known = {name for item in ITEMS for name in item.names}
    if unknown := [name for name in answers if name not in known]:
        raise ValueError(f"has no item {', '.join(unknown)}: CLAIM 1 to 44, TRIPOD+AI 1 to 27c")
    return answers


class Source(Settings):
    """Films, or weights that training started from.

    Attributes:
        name: Of the data set or the weights.
        what: What it holds, and how it was used.
        licence: Its licence, and what is known of it.
        where: Address, doi.
        thanks: The acknowledgement that its owners ask for.
        hub: Its name on the hub, or one like it; "" = none.
    """

    name: str
    what: str = ""
    licence: str = ""
    where: str = ""
    thanks: str = ""
    hub: str = ""

    @property
    def text(self) -> str:
        """All but the thanks, in a line."""
        licence = f"licence: {self.licence}" if self.licence else ""
        return "; ".join(filter(None, [self.what, licence, self.where]))


class Cost(Settings):
    """What training took.

    Attributes:
        commands: That train the model, in their order.
        machine: They ran on.
        minutes: All of them together.
        kilowatt_hours: All of them together.
        energy: How the energy is known: by which meter, or estimated from what.
        choice: How epoch, settings and seed were chosen.
    """

    commands: list[str] = Field(default_factory=list)
    machine: str = ""
    minutes: float | None = Field(default=None, ge=0)
    kilowatt_hours: float | None = Field(default=None, ge=0)
    energy: str = ""
    choice: str = ""


class Table(Settings):
    """Other measurements, such as films that are no knees and how many of them are referred.

    Attributes:
        title: Of its section.
        text: What was done, above the table.
        columns: Their names.
        rows: A cell a column each.
    """

    title: str
    text: str = ""
    columns: list[str] = Field(min_length=1)
    rows: list[list[str | int | float]]


class Facts(Settings):
    """What a card says beside what was measured.

    Attributes:
        name: The model's.
        summary: A paragraph on what it is.
        licence: Of its weights, as the hub names it: mit, apache-2.0, cc-by-4.0.
        intended: Uses that it is meant for.
        not_for: Uses that it is not meant for.
        data: Films it was trained and measured on.
        reference_standard: Who gave the true grades, and how.
        starting_weights: That training started from.
        training: What it took.
        failures: Known ones, with counts.
        limits: Of what the numbers say.
        tables: Other measurements.
        checklist: Answers of your own, {"CLAIM 13": "..."}, in place of what the card finds.
        tags: For the hub, beside those that every card has.
    """

    name: str = "A LegRadNet model"
    summary: str = ""
    licence: str = ""
    intended: list[str] = Field(default_factory=lambda: list(_INTENDED))
    not_for: list[str] = Field(default_factory=lambda: list(_NOT_FOR))
    data: list[Source] = Field(default_factory=list)
    reference_standard: str = ""
    starting_weights: list[Source] = Field(default_factory=list)
    training: Cost = Cost()
    failures: list[str] = Field(default_factory=list)
    limits: list[str] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    checklist: Annotated[dict[str, str], AfterValidator(_known_items)] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)


def read_facts(path: str | Path) -> Facts:
    """Read a file of facts.

    Raises:
        UserError: No such file, no YAML, or mistakes in it: all of them, by key.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no {path}.")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is no file of facts: it has more than {_MOST_BYTES:,} bytes.")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{path} is refused: a name like *this may stand for more than fits in memory.")
        values = yaml.safe_load(text)
    except NOT_YAML as error:
        raise not_yaml(path, error) from None
    return checked(Facts, {} if values is None else values, title=f"{path} has mistakes:")


def facts_text(facts: Facts) -> str:
    """What `read_facts` reads, without what is as it is for every model."""
    return yaml.safe_dump(facts.model_dump(exclude_defaults=True), allow_unicode=True, sort_keys=False, width=110)
