"""Every failure a user can cause, one class a kind, each with the exit code the command line gives it."""

_NO_MEMORY = ("allocate", "could not create a primitive")  # torch and its oneDNN, on a CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python or torch says that memory ran out."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _NO_MEMORY)
    return isinstance(error, MemoryError)


class RccError(Exception):
    """Base of all documented errors; the message is one line that names the culprit and the cause."""

    exit_code = 1


class InputError(RccError):
    """An image or data set is missing, unreadable or of a kind that is refused."""

    exit_code = 3


class FormatError(RccError):
    """A ``.rcc`` file is corrupt, truncated, foreign or of an unknown version."""

    exit_code = 4


class ModelError(RccError):
    """A model bundle is missing, damaged or not the one a file was made with."""

    exit_code = 5


class OutputError(RccError):
    """A result cannot be written; whatever stood under its name before is untouched."""

    exit_code = 6


class LimitError(RccError):
    """A size is outside the stated limits."""

    exit_code = 7
