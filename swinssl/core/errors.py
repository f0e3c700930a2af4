"""The two ways in which a command ends early without a bug: the user can mend it, or the user stopped it."""


class UserError(Exception):
    """Something the user can mend; the message names the file, what was found, what was expected and the remedy.

    Commands print the message without a traceback and exit 2.
    """


class Interrupted(Exception):
    """Work was stopped on request after saving; the message says how to go on. Commands exit 130."""
