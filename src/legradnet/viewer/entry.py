"""Who may enter: a token for each reader, good for one time, and the cookie that it is exchanged for."""

import hashlib
import secrets
import threading
from collections.abc import Sequence


class Entry:
    """Tokens and cookies of some readers. What is kept of either is its digest.

    Args:
        readers: Their names.
        port: Where the server listens, part of the cookie's name: browsers send it to every port of a host.
        secure: Whether the server speaks TLS.
    """

    def __init__(self, readers: Sequence[str], port: int, *, secure: bool) -> None:
        self._lock = threading.Lock()
        self.tokens = {reader: secrets.token_urlsafe(32) for reader in readers}
        self._unused = {_digest(token): reader for reader, token in self.tokens.items()}
        self._inside: dict[bytes, str] = {}
        self.secure = secure
        self.cookie = f"{'__Host-' if secure else ''}legradnet-view-{port}"

    def exchange(self, token: str) -> str | None:
        """A cookie's value for a token that nobody has used, else None."""
        with self._lock:
            reader = self._unused.pop(_digest(token), None)
            if reader is None:
                return None
            value = secrets.token_urlsafe(32)
            self._inside[_digest(value)] = reader
            return value

    def reader_of(self, value: str | None) -> str | None:
        """Whose cookie this is."""
        return self._inside.get(_digest(value)) if value else None

    def header(self, value: str) -> str:
        """The header that sets the cookie."""
        secure = "; Secure" if self.secure else ""
        return f"{self.cookie}={value}; Path=/; HttpOnly; SameSite=Strict{secure}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
