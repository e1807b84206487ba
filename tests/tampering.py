"""What an attacker, or a bad disk, could make of plain values: always the same changes for the same seed."""

import copy
import math
import random

ODD = [None, True, -1, 0, -0.5, 1e308, 10**9, 10**30, math.nan, math.inf, -math.inf, "", "x" * 10**6, "../../etc"]
ODD += [[], [[]], {}, {"a": {}}, [math.nan] * 5, [1e9] * 5, list(range(5000)), {str(i): i for i in range(5000)}]


def nested(depth):
    """A small list that is 2**`depth` large to whoever walks through it, and can't be written as JSON."""
    values = []
    for _ in range(depth):
        values = [values, values]
    return values


def places(values, place=()):
    """Every place in nested plain values, and a few of each list."""
    yield place
    if isinstance(values, dict):
        for key in values:
            yield from places(values[key], (*place, key))
    elif isinstance(values, list):
        for i in range(min(2, len(values))):
            yield from places(values[i], (*place, i))


def tampered(values, count, seed, more=(), somewhere=False):
    """`count` changed copies of `values`: (what was changed, the copy).

    Every place comes first, or with `somewhere` any place; `more` are values to put in beside `ODD`.
    """
    rng = random.Random(seed)
    everywhere = [place for place in places(values) if place]
    odd = [*ODD, *more]
    for number in range(count):
        changed = copy.deepcopy(values)
        *way, last = everywhere[number] if number < len(everywhere) and not somewhere else rng.choice(everywhere)
        around = changed
        for key in way:
            around = around[key]
        kind = rng.choice(["value"] * 6 + ["missing", "extra"])
        value = rng.choice(odd)
        if kind == "missing":
            del around[last]
        elif kind == "extra" and isinstance(around, dict):
            around["surplus"] = value
        elif kind == "extra":
            around.append(value)
        else:
            around[last] = value
        yield f"{kind} at {'.'.join(map(str, (*way, last)))}: {type(value).__name__!s}", changed
