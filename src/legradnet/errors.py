"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Something the user can mend: told in words, without a stack trace, and with an exit status that is not 0."""


def how_to_install(extra: str) -> str:
    """The command that adds an extra; it names the checkout, not a package on some index that may not be ours."""
    return f"pip install -e '.[{extra}]' in the checkout of LegRadNet"
