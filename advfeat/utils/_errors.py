"""Errors that say how to go on."""


def add_hint(error, hint):
    """Add a sentence to the message of an exception, whatever Python and whatever its kind."""
    if not error.args:
        error.args = (hint,)
    elif len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} {hint}",)
    elif isinstance(error, OSError) and error.strerror:
        error.strerror = f"{error.strerror}. {hint}"
    elif hasattr(error, "add_note"):  # Python 3.11
        error.add_note(hint)
