"""What the command line answers with one line and exit status 2."""


class Problem(Exception):
    """Something that the user asked for cannot be done; its text is one line that says why."""


def first_line(error: BaseException) -> str:
    """What an exception says, without the rest of a long message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
