"""The one error a user is meant to read."""


class UserError(Exception):
    """Something the user can put right; the message ends with what to do next."""
