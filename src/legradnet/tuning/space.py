"""A search space in Hydra's words: `interval(1e-5,1e-3)`, `int(interval(1,10))`, `range(1,10)`, `mha,mlp`."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from legradnet.errors import UserError


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Args:
        key: A config key, or a config group such as `gating`.
        distribution: What is drawn from; the choices of a categorical one are texts in Hydra's grammar, so that a
            quoted string, null, a list or a dict is the same value in every job.
        prefix: `+` or `++` of the override.
        values: What a range has in it, exactly as Hydra counts; empty for the others.
        group: Whether the key is a config group, which decides on other keys.
    """

    key: str
    distribution: BaseDistribution
    prefix: str = ""
    values: tuple[float, ...] = ()
    group: bool = False

    def suggest(self, trial: Trial) -> str:
        """Draw a value; the override that sets it."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log, step=step):
                return self.override(trial.suggest_float(self.key, low, high, log=log, step=step))
            case IntDistribution(low=low, high=high, log=log, step=step):
                return self.override(trial.suggest_int(self.key, low, high, log=log, step=step))
            case CategoricalDistribution(choices=choices):
                return self.override(trial.suggest_categorical(self.key, choices))
        raise AssertionError(self.distribution)

    def override(self, value: Any) -> str:
        """The override that sets a drawn value."""
        if self.values:  # a sum of float steps is not always the number that Hydra writes
            value = min(self.values, key=lambda known: abs(known - value))
        return f"{self.prefix}{self.key}={value}"

    def drawn(self, value: Any) -> Any:
        """What would have been drawn for a config's plain `value`.

        Raises:
            UserError: It is not in the space.
        """
        if isinstance(self.distribution, CategoricalDistribution):
            for text in map(str, self.distribution.choices):
                parsed = _value_of(self.key, text)
                if (parsed == value and type(parsed) is type(value)) or text == value:
                    return text
        elif isinstance(value, int | float) and not isinstance(value, bool):
            low, high = self.distribution.low, self.distribution.high  # type: ignore[attr-defined]
            if low <= value <= high and (not self.values or value in self.values):
                return int(value) if isinstance(self.distribution, IntDistribution) else float(value)
        raise UserError(f"hydra.sweeper.enqueue: {self.key}={value} is not in the search space, {self.describe()}.")

    def points(self) -> Sequence[Any]:
        """All values that can be drawn.

        Raises:
            UserError: They cannot be counted.
        """
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices
        if self.values:
            return self.values
        if isinstance(self.distribution, IntDistribution):
            return range(self.distribution.low, self.distribution.high + 1)
        raise UserError(f"sampler=grid needs values that can be counted; {self.key} is {self.describe()}: use range().")

    def describe(self) -> str:
        """The space in words."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return f"one of {', '.join(map(str, choices))}"
            case FloatDistribution() | IntDistribution() as numbers:
                kind = "whole numbers" if isinstance(numbers, IntDistribution) else "numbers"
                step = f" in steps of {numbers.step}" if self.values else ""
                return f"{kind} from {numbers.low} to {numbers.high}{step}{', log scale' if numbers.log else ''}"
        raise AssertionError(self.distribution)


def parameter(override: Override, *, group: bool = False) -> Parameter:
    """The searched key of an override with several values.

    Raises:
        UserError: It says nothing that can be searched.
    """
    sweep = override.value()
    prefix = "++" if override.is_force_add() else "+" if override.is_add() else ""
    key = override.get_key_element().lstrip("+")
    if getattr(sweep, "shuffle", False):
        raise UserError(f"{override.input_line}: shuffle() has no meaning in a search.")
    log = "log" in getattr(sweep, "tags", ())
    values: tuple[float, ...] = ()
    distribution: BaseDistribution
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None and sweep.end is not None
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        low, high = sorted((sweep.start, sweep.end))
        _check_log(override, log, low)
        if whole:
            distribution = IntDistribution(int(low), int(high), log=log)
        else:
            distribution = FloatDistribution(float(low), float(high), log=log)
    elif isinstance(sweep, RangeSweep):
        values = tuple(sorted(sweep.range()))
        if not values:
            raise UserError(f"{override.input_line} has no value in it: the stop of a range is not one of its values.")
        _check_log(override, log, values[0])
        if log and abs(sweep.step) != 1:
            raise UserError(f"{override.input_line}: a log scale needs steps of 1.")
        if all(isinstance(value, int) for value in values):
            distribution = IntDistribution(int(values[0]), int(values[-1]), log=log, step=int(abs(sweep.step)))
        else:
            step = abs(Decimal(str(sweep.step)))
            high = float(Decimal(str(values[0])) + (len(values) - 1) * step)
            distribution = FloatDistribution(values[0], high, step=float(step))
    else:
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if not choices:
            raise UserError(f"{override.input_line} has no value in it.")
        distribution = CategoricalDistribution(choices)
    return Parameter(key, distribution, prefix, values, group)


class Space:
    """Searched keys, some of which exist only under some choices of config groups.

    Args:
        parameters: The searched keys.
        keys_under: Keys that a config has when these overrides choose its groups.
        optional: Keys that are left out if they exist under no choice.

    Raises:
        UserError: Another key exists under no choice.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        keys_under: Callable[[Sequence[str]], set[str]],
        optional: Collection[str] = (),
    ) -> None:
        self.groups = [one for one in parameters if one.group]
        self.others = [one for one in parameters if not one.group]
        self._keys_under = keys_under
        self._known: dict[tuple[str, ...], set[str]] = {}
        missing = self._missing()
        self.others = [one for one in self.others if one.key not in missing]
        if unknown := missing - set(optional):
            raise UserError(f"No config has the searched {', '.join(sorted(unknown))}; to add a key, put + before it.")

    @property
    def parameters(self) -> list[Parameter]:
        """All searched keys, groups first: they decide what other keys there are."""
        return [*self.groups, *self.others]

    @cached_property
    def _by_key(self) -> dict[str, Parameter]:
        return {one.key: one for one in self.parameters}

    def suggest(self, trial: Trial) -> list[str]:
        """Draw a value for each key that exists under the drawn groups; the overrides that set them."""
        chosen = [one.suggest(trial) for one in self.groups]
        return [*chosen, *(one.suggest(trial) for one in self._others_under(chosen))]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides that set drawn parameters; names that are no searched keys are keys with plain values."""
        known = [one.override(params[one.key]) for one in self.parameters if one.key in params]
        return known + [f"{key}={text_of(value)}" for key, value in params.items() if key not in self._by_key]

    def drawn(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point given in plain values, as it would have been drawn.

        Raises:
            UserError: A key or value is not in the space.
        """
        for key in point:
            if key not in self._by_key:
                raise UserError(
                    f"hydra.sweeper.enqueue: {key} is not searched; searched are {', '.join(self._by_key)}."
                )
        return {key: self._by_key[key].drawn(value) for key, value in point.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point, as drawn."""
        for combination in itertools.product(*(one.points() for one in self.groups)):
            chosen = dict(zip((one.key for one in self.groups), combination, strict=True))
            others = self._others_under([one.override(chosen[one.key]) for one in self.groups])
            for values in itertools.product(*(one.points() for one in others)):
                yield {**chosen, **dict(zip((one.key for one in others), values, strict=True))}

    def describe(self) -> dict[str, str]:
        """The space in words by key."""
        return {one.key: one.describe() for one in self.parameters}

    def _others_under(self, chosen: Sequence[str]) -> list[Parameter]:
        if tuple(chosen) not in self._known:
            self._known[tuple(chosen)] = self._keys_under(chosen)
        keys = self._known[tuple(chosen)]
        return [one for one in self.others if one.prefix or one.key in keys]

    def _missing(self) -> set[str]:
        first = [one.override(one.points()[0]) for one in self.groups]
        missing = {one.key for one in self.others} - {one.key for one in self._others_under(first)}
        for index, one in enumerate(self.groups):
            for value in one.points():
                if not missing:
                    return missing
                chosen = [*first[:index], one.override(value), *first[index + 1 :]]
                missing -= {other.key for other in self._others_under(chosen)}
        return missing


def text_of(value: Any) -> str:
    """A plain value in Hydra's grammar, so that it is read as the same value again."""
    return Override._get_value_element_as_str(_quoted(value))


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    if isinstance(value, dict):
        return {key: _quoted(one) for key, one in value.items()}
    return value


def _value_of(key: str, text: str) -> Any:
    return OverridesParser.create().parse_override(f"{key}={text}").value()


def _check_log(override: Override, log: bool, low: float) -> None:
    if log and low <= 0:
        raise UserError(f"{override.input_line}: a log scale needs numbers above 0.")
