"""Messages of errors: short, and with what to do."""


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


def first_line(error):
    """First line of an exception's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shortened(names):
    """Names for a message, not more than five."""
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
