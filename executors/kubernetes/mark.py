"""What the wrapper says when its script has ended. Pure."""

from dataclasses import dataclass

from executors.base import Outcome
from executors.kubernetes.status import exit_outcome


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a script, and what it left in the container."""

    exit_code: int
    has_memory_kills: bool
    has_outputs: bool
    has_results: bool
    #: TERM came before the end: the cluster ends the container, though the pod's state may not say so yet.
    is_terminated: bool = False
    #: The container can talk to the artifact store by itself.
    has_curl: bool = False

    @classmethod
    def read(cls, text: str) -> "Mark":
        """Returns what the line says: exit code, memory kills, and letters of the wrapper."""
        code, kills, results = [*text.split(":"), "", ""][:3]
        return cls(
            exit_code=int(code) if code.isdigit() else 255,
            has_memory_kills=kills.isdigit() and int(kills) > 0,
            has_outputs="o" in results,
            has_results="r" in results,
            is_terminated="t" in results,
            has_curl="c" in results,
        )

    def outcome(self) -> Outcome:
        """Returns the outcome of the attempt."""
        return exit_outcome(self.exit_code, has_memory_kills=self.has_memory_kills)
