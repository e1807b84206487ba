"""What typed settings share: how they are checked, in which words a mistake is told, and the list of their keys.

A config group is one pydantic model, in the room that uses it: type, range, default, a line of description. The same
models check what a checkpoint or an export says of itself.
"""

import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from legradnet.errors import UserError

_BOUNDS = {"ge": "of at least {}", "gt": "above {}", "le": "of at most {}", "lt": "below {}"}
_SHOWN = 20  # mistakes of one file or config: who has more has another problem

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=0.99)]  # of films, or a probability of dropping something


class Kind(Enum):
    """What a text stands for that a shell gives as it is, whatever Hydra's grammar makes of its characters."""

    PATH = "path"
    TEXT = "text"  # an expression, a URL


def expanded(path: str) -> str:
    """`path` with the home folder in place of a `~` at its beginning, unless something of that name is here."""
    return path if os.path.lexists(path) else os.path.expanduser(path)  # noqa: PTH111 a path as text


def _path(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):  # whatever bytes a file system has in a name: pydantic's own check wants UTF-8
        raise PydanticCustomError("path_type", "must be text")
    if not text or "\0" in text:
        raise ValueError("must be a path" if text else "must be a path, and is empty")
    return expanded(text)


PathText = Annotated[str, PlainValidator(_path), Kind.PATH]
VerbatimText = Annotated[str, Kind.TEXT]


class _Told(ModelMetaclass):
    """Settings made in Python, `DataSettings(batch_size=0)`, tell mistakes as those of a config do."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise _mistakes(self, error, title=f"{self.__name__} has mistakes:") from None  # type: ignore[arg-type]


class Settings(BaseModel, metaclass=_Told):
    """A group of settings: unknown keys, wrong types, infinities and NaN are mistakes; true is no number.

    Raises:
        UserError: All mistakes, each with its key, its value and what it may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Key:
    """A key that users set.

    Attributes:
        name: With its group, `data.batch_size`; `<key>` stands for a name that users choose.
        needed: Whether it has no default.
        default: Its default.
        description: One line.
        kind: What its text stands for; None: a value as Hydra reads it.
        several: Whether it may be a list.
    """

    name: str
    needed: bool
    default: Any
    description: str
    kind: Kind | None = None
    several: bool = False


def checked(
    model: type[Model], values: Any, *, group: str = "", title: str = "The configuration has mistakes:"
) -> Model:
    """Settings out of plain values.

    Args:
        model: What they should be.
        values: A mapping, or settings that are checked already.
        group: Where they stand in the config, `data`; "" is the top.
        title: First line of the message.

    Raises:
        UserError: `title` and below it every mistake with its key, its value and what it may be.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _mistakes(model, error, group, title) from None


def keys(model: type[BaseModel], group: str = "", own: BaseModel | None = None) -> Iterator[Key]:
    """All keys of a model, in the order of their definition; those of choices with different keys side by side.

    Args:
        model: Of the settings.
        group: Where they stand in the config, `data`; "" is the top.
        own: Settings whose values are the defaults, in place of the model's.
    """
    for name, field in model.model_fields.items():
        place = f"{group}.{name}".lstrip(".")
        annotation, prefix = field.annotation, place
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        default = getattr(own, name) if own else default
        if get_origin(annotation) is dict:
            annotation, prefix = get_args(annotation)[1], f"{place}.<key>"
        if groups := _groups(annotation):
            members = [(member, default if isinstance(default, member) else None) for member in groups]
            inner = {key.name: key for member, its in reversed(members) for key in keys(member, prefix, its)}
            order = dict.fromkeys(key.name for member, its in members for key in keys(member, prefix, its))
            yield from (inner[key] for key in order)
        else:
            several = any(get_origin(member) is list for member in _members(annotation))
            kind = _kind(annotation, field.metadata)
            yield Key(place, field.is_required(), default, field.description or "", kind, several)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys; an empty mapping stays as a value."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _mistakes(model: type[BaseModel], error: ValidationError, group: str = "", title: str = "") -> UserError:
    mistakes = list(dict.fromkeys(_mistake(model, group, mistake) for mistake in error.errors(include_url=False)))
    more = [f"  and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else []
    return UserError("\n".join([title, *mistakes[:_SHOWN], *more]))


def _mistake(model: type[BaseModel], group: str, error: ErrorDetails) -> str:
    parts, annotation, field, owner = _place(model, error["loc"])
    key = ".".join([*filter(None, [group]), *parts])
    value = error["input"]
    text = "null" if value is None else str(value)
    shown = reprlib.repr(value) if isinstance(value, (list, dict, tuple)) else _shortened(text)
    match error["type"]:
        case "extra_forbidden":
            return f"  {key} is unknown; there are {', '.join(owner.model_fields)}"
        case "missing":
            return f"  {key}= is needed"
        case "union_tag_not_found":
            return f"  {key} has no name: choose one of {', '.join(_tags(annotation))}"
        case "union_tag_invalid":
            name = value.get("name") if isinstance(value, Mapping) else value
            return f"  {key}.name={_shortened(str(name))} must be one of {', '.join(_tags(annotation))}"
        case "value_error":  # of a validator of ours
            words = str(error["ctx"]["error"])
            return f"  {words}" if isinstance(value, (Mapping, BaseModel)) else f"  {key}={shown} {words}"
        case _:
            if isinstance(value, str) and value.lstrip("-").replace(".", "", 1).isdecimal():
                shown = repr(shown)  # a number as text
            kind = _described(annotation, field.metadata if field else [])
            return f"  {key}={shown} must be {kind}" if key else f"  {shown} must be {kind}"


def _place(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[list[str], Any, FieldInfo | None, type[BaseModel]]:
    """Keys on the way to a mistake, what should be there, and the field and model that it belongs to."""
    parts: list[str] = []
    annotation: Any = model
    field: FieldInfo | None = None
    owner = model
    for element in loc:
        groups = _groups(annotation)
        if len(groups) > 1 and element in _tags(annotation):  # which of several groups was checked
            annotation = groups[_tags(annotation).index(str(element))]
            continue
        if groups:
            owner = groups[0]
            field = owner.model_fields.get(str(element))
            annotation = field.annotation if field else None
        elif get_origin(bare := _members(annotation)[0]) in (dict, Mapping):
            annotation, field = get_args(bare)[1], None
        elif get_origin(bare) in (list, tuple):
            annotation, field = get_args(bare)[0], None
        elif annotation is not None and len(_members(annotation)) > 1:  # which of several types was tried
            continue
        parts.append(str(element))
        if annotation is None:  # a key that may be added: which of its types was tried says nothing
            break
    return parts, annotation, field, owner


def _members(annotation: Any) -> list[Any]:
    """The types of a union without None, or the one type; what is annotated stays annotated."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(bare) in (Union, UnionType):
        return [member for part in get_args(bare) if part is not NoneType for member in _members(part)]
    return [annotation]


def _kind(annotation: Any, metadata: list[Any]) -> Kind | None:
    notes = [note for member in _members(annotation) if get_origin(member) is Annotated for note in get_args(member)]
    return next((note for note in [*metadata, *notes] if isinstance(note, Kind)), None)


def _groups(annotation: Any) -> list[type[BaseModel]]:
    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]


def _tags(annotation: Any) -> list[str]:
    """Names of the groups of a union that are told apart by `name`."""
    names = [group.model_fields.get("name") for group in _groups(annotation)]
    return [str(value) for name in names if name for value in get_args(name.annotation)]


def _described(annotation: Any, limits: list[Any]) -> str:
    """What a value may be, in words."""
    if annotation is None:
        return "a single value"
    choices: list[str] = []
    kinds: list[str] = []
    optional = NoneType in get_args(annotation)
    for member in _members(annotation):
        bare, own = member, limits
        if get_origin(member) is Annotated:
            bare, *notes = get_args(member)
            own = [limit for note in notes for limit in (note.metadata if isinstance(note, FieldInfo) else [note])]
        if get_origin(bare) is Literal:
            choices += ["null" if value is None else str(value) for value in get_args(bare)]
        elif bare is bool:
            choices += ["true", "false"]
        elif bare in (int, float):
            kinds.append(f"a {'whole ' if bare is int else ''}number{_span(own)}")
        elif get_origin(bare) in (list, tuple):
            kinds.append(f"a list{_length(own)}, each {_described(get_args(bare)[0], [])}")
        elif _groups(bare) or get_origin(bare) in (dict, Mapping):
            kinds.append("a group of keys")
        else:
            kinds.append("text")
    if choices:
        kinds.insert(0, f"one of {', '.join([*dict.fromkeys(choices), *(['null'] if optional and not kinds else [])])}")
        optional = optional and len(kinds) > 1
    return " or ".join([*kinds, *(["null"] if optional else [])])


def _span(limits: list[Any]) -> str:
    bounds = {name: getattr(limit, name) for limit in limits for name in _BOUNDS if hasattr(limit, name)}
    words = [
        _BOUNDS[name].format(f"{bound:g}" if isinstance(bound, float) else bound) for name, bound in bounds.items()
    ]
    if bounds.keys() == {"ge", "le"}:
        return f" from {words[0]} to {words[1]}".replace("of at least ", "").replace("of at most ", "")
    return "".join(f" {word}" for word in words)


def _length(limits: list[Any]) -> str:
    least, most = (
        next((getattr(limit, name) for limit in limits if hasattr(limit, name)), None)
        for name in ("min_length", "max_length")
    )
    if least == most:
        return "" if least is None else f" of {least}"
    return (f" of at least {least}" if least else "") + (f" of at most {most}" if most is not None else "")


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
