"""The one exception that stands for a problem the user can mend."""


class UserError(ValueError):
    """Bad input: a flag, a file or a record that the user has to change.

    The message is one sentence of the form *where: what was found; what was expected; what to do*.
    The command line prints it as it is, without a traceback. It is a ValueError because that is
    what the functions of the published scripts raise, and callers from Python may rely on it.
    """
