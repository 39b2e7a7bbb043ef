"""Why an ant ends.

FormicaryError
├── ConflictError
│   └── AntIdHeldError      another live process serves under this id
└── AntEndedError           the ant cannot keep its promises any more and left
    └── WardenLostError     its warden is gone or never came
"""

from formicary.errors import ConflictError, FormicaryError
from formicary.ids import AntId


class AntIdHeldError(ConflictError):
    """Another live process serves under this id; ``holder`` says which."""

    def __init__(self, ant_id: AntId, holder: str) -> None:
        super().__init__(f"ant id {ant_id} is held by {holder}; stop that one or start this one with another --id")
        self.ant_id = ant_id
        self.holder = holder


class AntEndedError(FormicaryError):
    """The ant cannot keep its promises any more; it ended its work and left."""

    code = "ERR_ANT_ENDED"


class WardenLostError(AntEndedError):
    """Without its warden an ant must not run anything."""

    def __init__(self, ant_id: AntId, reason: str) -> None:
        super().__init__(f"the warden of ant {ant_id} is gone ({reason}); its work was ended, start the ant again")
        self.ant_id = ant_id


class TransferError(FormicaryError):
    """An artifact could not be fetched or stored; ``name`` is its path."""

    code = "ERR_ARTIFACT"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"artifact {name}: {message}")
        self.name = name
