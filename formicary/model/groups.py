"""Groups, within which names of definitions are unique and what is cached or remembered is shared."""

from typing import Final

#: Whose everything is while a colony knows one group only.
DEFAULT_GROUP: Final = "default"
