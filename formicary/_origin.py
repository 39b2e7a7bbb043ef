"""Tells a foreign ``brokers`` or ``executors`` package from ours: both names are short, and others use them too."""

from importlib.util import find_spec
from pathlib import Path

#: The packages that are installed beside ``formicary``.
COMPANIONS = ("brokers", "executors")


def check_packages() -> None:
    """Proves that the packages beside ``formicary`` are the ones that Python would import; imports none of them.

    Raises:
        InvalidInputError: names what is found first, and what to do about it.
    """
    home = Path(__file__).resolve().parent.parent
    for name in COMPANIONS:
        found = _folder_of(name)
        if found is None:
            raise _refusal(f"the package {name} is missing beside {home / 'formicary'}; install formicary anew")
        if found != home / name:
            raise _refusal(
                f"another package named {name} is found first: {found}, not {home / name}; "
                f"uninstall it, or take its folder off PYTHONPATH and out of the working directory"
            )


def _folder_of(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    return Path(places[0]).resolve()


def _refusal(message: str) -> Exception:
    from formicary.errors import InvalidInputError  # not above: every start would pay for it

    return InvalidInputError(message)
