"""The two ways in which a command ends early without a bug: an error the user can fix, or an interruption."""


class UserError(Exception):
    """An error the user can fix; the message names the file, what was found, what was expected, and the remedy.

    Commands print the message without a traceback and exit 2.
    """


class Interrupted(Exception):
    """Work was stopped on request after saving; the message says how to resume. Commands exit 130."""
