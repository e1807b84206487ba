"""What was made for the page once and is asked for again: kept in memory, the longest unasked is dropped first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """Things of a known size.

    Args:
        most: Bytes of all together.
    """

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self._lock = threading.Lock()
        self._things: OrderedDict[Hashable, tuple[Made, int]] = OrderedDict()

    def get(self, key: Hashable) -> Made | None:
        """What was kept, if it still is."""
        with self._lock:
            if key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key][0]

    def put(self, key: Hashable, thing: Made, size: int) -> None:
        """Keep something of `size` bytes, unless it is more than a quarter of all."""
        with self._lock:
            if key in self._things:
                self.size -= self._things.pop(key)[1]
            if size <= self.most // 4:
                self._things[key] = thing, size
                self.size += size
            while self.size > self.most:
                self.size -= self._things.popitem(last=False)[1][1]
