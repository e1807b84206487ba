"""The command line before Hydra reads it: a path is what the shell gave, and what Hydra can't read is told in words."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from legradnet.errors import UserError
from legradnet.settings import Key, Kind, expanded

_OVERRIDE = re.compile(r"(\+{0,2})([^=]*)=(.*)", re.DOTALL)
_PLAIN = re.compile(  # to Hydra as to anybody
    r"(?!(?:null|true|false|nan|inf)\b)(?:[a-z_/]|\.{1,2}/)[\w./-]*", re.ASCII | re.IGNORECASE
)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_REFERENCE = re.compile(r"\$\{[^{}]+\}")
_FOLDERS = [Key(f"hydra.{name}.dir", False, None, "", Kind.PATH) for name in ("run", "sweep")]  # Hydra's own


def readable(arguments: Sequence[str], keys: Callable[[], Iterable[Key]]) -> list[str]:
    """A command's arguments so that Hydra reads each path as the shell gave it.

    What begins as a path does, and exists, is that path; else Hydra's lists, interpolations and, with -m, several
    values stay what they are where the key takes them, and everything else is a path.

    Args:
        arguments: What stands behind the command's name.
        keys: Of the command; asked for only when it matters, as they may be slow to import.

    Raises:
        UserError: Arguments that Hydra can't read, all together, with what to write instead.
    """
    options = get_args_parser().parse_args(list(arguments))
    overrides = [text for text in options.overrides if not _is_plain(text)]
    if not overrides:
        return list(arguments)
    multirun = options.multirun or any(text.upper() == "HYDRA.MODE=MULTIRUN" for text in options.overrides)
    reader = _Reader([*_FOLDERS, *keys()], multirun)
    written, mistakes = {}, []
    for text in overrides:
        try:
            written[text] = reader.written(text)
        except UserError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return [written.get(argument, argument) for argument in arguments]


class _Reader:
    def __init__(self, keys: Iterable[Key], multirun: bool) -> None:
        self.keys = [(_pattern(key.name), key) for key in keys if key.kind]
        self.multirun = multirun
        self.parser = OverridesParser.create()

    def written(self, text: str) -> str:
        """The override as Hydra should get it."""
        if (override := _OVERRIDE.fullmatch(text)) is None:
            if not text.startswith("~") or text == "~" or self._parsed(text) is None:
                raise UserError(f"{text} is no setting: a setting is written KEY=VALUE.")
            return text
        prefix, name, value = override.groups()
        if name.removeprefix("~").partition("@")[0] == "":
            raise UserError(f"{text} is no setting: a setting is written KEY=VALUE.")
        if key := next((key for pattern, key in self.keys if pattern.fullmatch(name)), None):
            return f"{prefix}{name}={self._of_key(key, value, self.multirun)}"
        if (parsed := self._parsed(text)) is None:
            if self._parsed(f"{prefix}{name}=0") is None:
                raise UserError(f"{text}: {prefix}{name} can't be the name of a key.")
            raise UserError(f"{name}: Hydra can't read the value {value}: as text it is written "
                            f"{_pasted(prefix, name, value)}")  # fmt: skip
        if parsed.is_sweep_override() and not self.multirun:
            raise UserError(f"{name}: {value} is several values: -m runs once for each, "
                            f"{shlex.quote(f'{prefix}{name}=[{value}]')} is a list, "
                            f"{_pasted(prefix, name, value)} is text.")  # fmt: skip
        return text

    def _of_key(self, key: Key, value: str, several_runs: bool) -> str:
        """A path or text as Hydra should get it."""
        literal = expanded(value) if key.kind is Kind.PATH else value
        parsed = self._parsed(f"key={value}")
        one = parsed.value() if parsed is not None and not parsed.is_sweep_override() else None
        reads = one if isinstance(one, str) else None
        if not value or (reads == literal != "???" and not _INTERPOLATION.search(value)):
            return value
        if key.kind is Kind.PATH and os.path.lexists(literal):
            return _quoted(literal)
        if _QUOTED.fullmatch(value) and reads is not None:
            return value if reads == expanded(reads) else _quoted(expanded(reads), interpolated=True)
        if value == "???" or (parsed is not None and value.lower() == "null" and not key.needed):
            return value
        if reads is not None and key.kind is Kind.PATH and os.path.lexists(expanded(reads)):
            return value  # escaped as Hydra's grammar has it
        if several_runs:
            listed = parsed is None or parsed.value_type is ValueType.SIMPLE_CHOICE_SWEEP
            if parsed is not None and parsed.is_sweep_override() and not listed:
                return value  # choice(), glob()
            if len(parts := list(_split(value))) > 1:
                return ",".join(self._of_key(key, part, False) for part in parts)
        if key.several and value.startswith("[") and value.endswith("]"):
            return f"[{','.join(self._of_key(key, part, False) for part in _split(value[1:-1]))}]"
        return _quoted(literal, interpolated=bool(_REFERENCE.search(value)))

    def _parsed(self, text: str) -> Override | None:
        try:
            return self.parser.parse_override(text)
        except (HydraException, ValueError, RecursionError):
            return None
        except Exception as error:  # ANTLR's, which share no class of their own
            if type(error).__module__.startswith("antlr4"):
                return None
            raise


def _is_plain(text: str) -> bool:
    override = _OVERRIDE.fullmatch(text)
    return bool(override and _PLAIN.fullmatch(override[3]) and re.fullmatch(r"[\w./@]+", override[2], re.ASCII))


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace("<key>", r"[^.=]+"))


def _pasted(prefix: str, name: str, value: str) -> str:
    return shlex.quote(f"{prefix}{name}={_quoted(value, interpolated=True)}")


def _quoted(text: str, *, interpolated: bool = False) -> str:
    """Text as a value of Hydra's grammar; `${...}` in it stays what it is to OmegaConf where it is `interpolated`."""
    if not interpolated:
        text = _INTERPOLATION.sub(lambda match: f"{match[1] * 2}\\${{", text)
        text = f"./{text}" if text == "???" else text  # which to OmegaConf is a missing value
    return QuotedString(text, Quote.double).with_quotes()


def _split(text: str) -> Iterator[str]:
    """What stands between the commas of a list, those in quotes and inner brackets left alone."""
    depth, start, place = 0, 0, 0
    closed = text.count("[") == text.count("]")
    while place < len(text):
        if quoted := _QUOTED.match(text, place):
            place = quoted.end()
            continue
        depth += closed * ((text[place] == "[") - (text[place] == "]"))
        if text[place] == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
        place += 1
    yield text[start:].strip()
