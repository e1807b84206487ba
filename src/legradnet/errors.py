"""The one exception that stands for a user's mistake, and what no message may repeat."""

import re

# between the user and the last @ of a URL, whatever is there; or what a word like password= is set to
_PASSWORD = re.compile(
    r"(?P<user>://[^:/@\n]*:)(?!\*\*\*@)(?:(?!://)[^\n])+(?=@)|"
    r"(?P<name>[?&][^=&\n]*(?:pass|pwd|secret|token|%)[^=&\n]*=|\bpassword\s*=\s*)(?!\*\*\*)[^&\n]+",
    re.IGNORECASE,
)


class UserError(ValueError):
    """Something the user can mend: told in words, without a stack trace, and with an exit status that is not 0."""


def how_to_install(extra: str) -> str:
    """The command that adds an extra; it names the checkout, not a package on some index that may not be ours."""
    return f"pip install -e '.[{extra}]' in the checkout of LegRadNet"


def without_passwords(text: str) -> str:
    """`text` with the passwords of all URLs in it left out."""
    return _PASSWORD.sub(lambda found: f"{found['user'] or found['name']}***", text)
