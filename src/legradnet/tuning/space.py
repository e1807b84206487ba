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
            value = min(self.values, key=lambda exact: abs(exact - value))
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


def parameter_of(override: Override, *, group: bool = False) -> Parameter:
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
        self.groups = [parameter for parameter in parameters if parameter.group]
        self.others = [parameter for parameter in parameters if not parameter.group]
        self._keys_under = keys_under
        self._keys: dict[tuple[str, ...], set[str]] = {}
        missing = self._missing()
        self.others = [parameter for parameter in self.others if parameter.key not in missing]
        if unknown := missing - set(optional):
            raise UserError(f"No config has the searched {', '.join(sorted(unknown))}; to add a key, put + before it.")

    @property
    def parameters(self) -> list[Parameter]:
        """All searched keys, groups first: they decide what other keys there are."""
        return [*self.groups, *self.others]

    @cached_property
    def _by_key(self) -> dict[str, Parameter]:
        return {parameter.key: parameter for parameter in self.parameters}

    def suggest(self, trial: Trial) -> list[str]:
        """Draw a value for each key that exists under the drawn groups; the overrides that set them."""
        chosen = [parameter.suggest(trial) for parameter in self.groups]
        return [*chosen, *(parameter.suggest(trial) for parameter in self._others_under(chosen))]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides that set drawn parameters; names that are no searched keys are keys with plain values."""
        drawn = [parameter for parameter in self.parameters if parameter.key in params]
        return [parameter.override(params[parameter.key]) for parameter in drawn] + [
            f"{key}={text_of(value)}" for key, value in params.items() if key not in self._by_key
        ]

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
        for combination in itertools.product(*(parameter.points() for parameter in self.groups)):
            chosen = dict(zip((parameter.key for parameter in self.groups), combination, strict=True))
            others = self._others_under([parameter.override(chosen[parameter.key]) for parameter in self.groups])
            for values in itertools.product(*(parameter.points() for parameter in others)):
                yield {**chosen, **dict(zip((parameter.key for parameter in others), values, strict=True))}

    def describe(self) -> dict[str, str]:
        """The space in words by key."""
        return {parameter.key: parameter.describe() for parameter in self.parameters}

    def _others_under(self, chosen: Sequence[str]) -> list[Parameter]:
        if tuple(chosen) not in self._keys:
            self._keys[tuple(chosen)] = self._keys_under(chosen)
        keys = self._keys[tuple(chosen)]
        return [parameter for parameter in self.others if parameter.prefix or parameter.key in keys]

    def _missing(self) -> set[str]:
        first = [parameter.override(parameter.points()[0]) for parameter in self.groups]
        missing = {other.key for other in self.others} - {other.key for other in self._others_under(first)}
        for index, parameter in enumerate(self.groups):
            for value in parameter.points():
                if not missing:
                    return missing
                chosen = [*first[:index], parameter.override(value), *first[index + 1 :]]
                missing -= {other.key for other in self._others_under(chosen)}
        return missing


def text_of(value: Any) -> str:
    """A plain value in Hydra's grammar, so that it is read as the same value again."""
    return Override._get_value_element_as_str(_quoted(value))


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    if isinstance(value, list):
        return [_quoted(element) for element in value]
    if isinstance(value, dict):
        return {key: _quoted(element) for key, element in value.items()}
    return value


def _value_of(key: str, text: str) -> Any:
    return OverridesParser.create().parse_override(f"{key}={text}").value()


def _check_log(override: Override, log: bool, low: float) -> None:
    if log and low <= 0:
        raise UserError(f"{override.input_line}: a log scale needs numbers above 0.")
