"""Every setting is checked by type and range, and a mistake is told in words with its key."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from legradnet.errors import UserError
from legradnet.settings import Key, Settings, checked, flat, keys


class Circle(Settings):
    name: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0, description="of the circle, mm")


class Square(Settings):
    name: Literal["square"] = "square"
    side: float = Field(2.0, ge=0.5, le=9)


class Part(Settings):
    material: Literal["bone", "metal"] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    strong: bool = True


class Drawing(Settings):
    seed: Annotated[int, Field(ge=0, le=99)] = 0
    title: str = Field(description="on the cover")
    shape: Annotated[Circle | Square, Field(discriminator="name")] = Circle()
    part: dict[str, Part] = Field(default_factory=dict)
    sizes: list[float] = Field(default_factory=lambda: [1.0])
    devices: int | str = 1


def told(**values):
    with pytest.raises(UserError) as mistake:
        checked(Drawing, {"title": "knee", **values}, title="Mistakes:")
    first, *others = str(mistake.value).splitlines()
    assert first == "Mistakes:"
    return others


def test_values_of_the_right_type_and_range_are_taken_and_defaults_filled_in():
    drawing = checked(Drawing, {"title": "knee", "shape": {"name": "square"}, "part": {"tibia": {"count": 3}}})
    assert drawing.shape == Square(side=2.0)
    assert drawing.part["tibia"] == Part(count=3)


def test_all_mistakes_are_told_at_once_with_key_value_and_what_is_right():
    assert told(seed=-1, shape={"name": "square", "side": 10}, part={"tibia": {"strong": 1, "material": "wood"}}) == [
        "  seed=-1 must be a whole number from 0 to 99",
        "  shape.side=10 must be a number from 0.5 to 9",
        "  part.tibia.material=wood must be one of bone, metal, null",
        "  part.tibia.strong=1 must be one of true, false",
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seed": True}, "seed=True must be a whole number"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"seed": float("nan")}, "seed=nan must be a whole number"),
        ({"shape": {"name": "circle", "radius": float("inf")}}, "shape.radius=inf must be a number above 0"),
        ({"shape": {"name": "star"}}, "shape.name=star must be one of circle, square"),
        ({"shape": {"radius": 1.0}}, "shape has no name: choose one of circle, square"),
        ({"shape": 3}, "shape=3 must be"),
        ({"part": {"tibia": {"count": 0}}}, "part.tibia.count=0 must be a whole number of at least 1 or null"),
        ({"part": {"tibia": 3}}, "part.tibia=3 must be a group of keys"),
        ({"colour": "red"}, "colour is unknown; there are seed, title, shape, part, sizes, devices"),
        ({"shape": {"name": "circle", "side": 1}}, "shape.side is unknown; there are name, radius"),
        ({"title": None}, "title=null must be text"),
        ({"sizes": "big"}, "sizes=big must be a list, each a number"),
        ({"sizes": [1.0, "big"]}, "sizes.1=big must be a number"),
        ({"devices": 1.5}, "devices=1.5 must be a whole number or text"),
    ],
)
def test_each_kind_of_mistake_is_one_line(values, words):
    (line,) = told(**values)
    assert line.startswith(f"  {words}")


def test_a_key_without_default_is_needed():
    with pytest.raises(UserError, match="drawing.title= is needed"):
        checked(Drawing, {}, group="drawing")


def test_a_long_list_of_mistakes_and_a_long_value_are_cut():
    lines = told(part={f"p{i}": {"count": "x" * 1000} for i in range(50)})
    assert len(lines) == 21
    assert lines[-1] == "  and 30 more"
    assert max(map(len, lines)) < 200


def test_keys_are_listed_with_default_and_description():
    listed = {key.name: key for key in keys(Drawing)}
    assert list(listed) == [
        *("seed", "title", "shape.name", "shape.radius", "shape.side"),
        *("part.<key>.material", "part.<key>.count", "part.<key>.strong", "sizes", "devices"),
    ]
    assert listed["title"] == Key("title", True, None, "on the cover")
    assert listed["shape.radius"] == Key("shape.radius", False, 1.0, "of the circle, mm")
    assert listed["shape.name"].default == "circle"
    assert listed["sizes"].default == [1.0]


def test_nested_values_become_dotted_keys():
    assert flat({"a": {"b": 1, "c": {}}, "d": 2}) == {"a.b": 1, "a.c": {}, "d": 2}


def test_a_group_s_own_default_is_that_of_its_keys():
    class Plan(Settings):
        part: Part = Part(count=7)
        shape: Annotated[Circle | Square, Field(discriminator="name")] = Square(side=3.0)

    defaults = {key.name: key.default for key in keys(Plan)}
    assert defaults["part.count"] == 7
    assert defaults["part.strong"] is True
    assert (defaults["shape.name"], defaults["shape.side"], defaults["shape.radius"]) == ("circle", 3.0, 1.0)


def test_settings_made_in_python_tell_their_mistakes_in_the_same_words():
    with pytest.raises(UserError) as told:
        Drawing(title="knee", seed=-1, part={"tibia": {"count": 0}}, colour="red")
    assert str(told.value).splitlines() == [
        "Drawing has mistakes:",
        "  seed=-1 must be a whole number from 0 to 99",
        "  part.tibia.count=0 must be a whole number of at least 1 or null",
        "  colour is unknown; there are seed, title, shape, part, sizes, devices",
    ]
    assert Drawing(title="knee", part={"tibia": Part(count=2)}).part["tibia"].count == 2
