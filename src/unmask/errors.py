"""Every way in which `unmask` refuses to go on. Each message names the thing, its value and the way out."""

_LONGEST = 2000  # characters of somebody's message that are repeated. Ours.
# How torch begins to say that a scripted network raised; what it raised stands in the last line.
_SCRIPTED = "The following operation failed in the TorchScript interpreter"


class UnmaskError(Exception):
    """Base of everything raised on purpose. The CLI prints its message on one line and exits with 2."""


class UnusableInput(UnmaskError):
    """The target, the data or an option cannot be used as given."""


class NoSuchSplit(UnusableInput):
    """The data can be read, and has no split of the name that was asked for."""


class ModelFailed(UnmaskError):
    """The user's network raised, or returned something that is not logits."""


class GradientFailed(ModelFailed):
    """The user's network raised in its backward pass; its forward pass may be sound."""


class AttackFailed(UnmaskError):
    """An attack of the user's own raised, or returned something that is no batch of images."""


class Diverged(UnmaskError):
    """Training whose loss or weights are no numbers any more; `epochs` are those before, whose weights are kept."""

    def __init__(self, message: str, epochs: int):
        super().__init__(message)
        self.epochs = epochs


class Unsupported(UnmaskError):
    """The combination asked for does not exist, for instance BPDA without a surrogate."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, as `unmask.foreign.signals_heard` tells them from what a network may raise."""


def plural(count: int, one: str, many: str) -> str:
    """The word that goes with so many: of "1 of 10 classes" that with one.

    >>> plural(1, "has", "have"), plural(0, "has", "have")
    ('has', 'have')
    """
    return one if count == 1 else many


def said(error: BaseException) -> str:
    """An exception's message, which can be printed; empty where it has none, or where its class fails to say it."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except BaseException:  # somebody's own class, whose words raise as well
        return ""


def first_line(error: BaseException) -> str:
    """First line of an exception's message that says something, at most `_LONGEST` characters of it, else its type."""
    message = said(error).strip()
    line = (message.splitlines() or [""])[-1 if message.startswith(_SCRIPTED) else 0]
    return line[:_LONGEST] + " …" * (len(line) > _LONGEST) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, which torch raises as a plain `RuntimeError` on the CPU."""
    return "out of memory" in said(error) or "can't allocate memory" in said(error)
