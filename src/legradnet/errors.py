"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Something the user can mend: told in words, without a stack trace, and with an exit status that is not 0."""
