"""What readers had to say of many films, told once for each kind of it."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Said(NamedTuple):
    """A remark, in the words of the first film that it was made of, and the names of all of them in their order."""

    text: str
    names: list[str]

    def few(self, most: int) -> str:
        """The names, or the first `most` of them and how many more there are."""
        more = f" and {len(self.names) - most:,} more" if len(self.names) > most else ""
        return ", ".join(self.names[:most]) + more


def by_kind(films: Iterable[tuple[str, Iterable[str]]]) -> list[Said]:
    """Gather what was said of films, (name, remarks) each; remarks that differ in numbers alone are of one kind."""
    kinds: dict[str, Said] = {}
    for name, remarks in films:
        for text in remarks:
            kinds.setdefault(re.sub(r"\d+", "", text), Said(text, [])).names.append(name)
    return list(kinds.values())
