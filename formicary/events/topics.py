"""Names of topics and consumer groups."""

from formicary.ids import AntId

PREFIX = "formicary"
ANTS = f"{PREFIX}.ants"
ANSWERS = f"{PREFIX}.answers"
LOGS = f"{PREFIX}.logs"
COMMANDS = f"{PREFIX}.commands"
LIFECYCLE = f"{PREFIX}.lifecycle"
#: How the names of inboxes begin where each ant has its own.
INBOXES = f"{PREFIX}.ant."
#: The one inbox of all ants where topics are dear.
ANT_INBOXES = f"{PREFIX}.ant"

#: What other services read with clients of their own: made by every queen, so that whoever comes first finds it.
FOR_OTHERS = (COMMANDS, f"{COMMANDS}.dead", LIFECYCLE)

LOG_WRITERS = f"{PREFIX}.log-writers"
QUEENS = f"{PREFIX}.queens"


def results(shard: int) -> str:
    """Returns the log of what ants report about a shard's attempts."""
    return f"{PREFIX}.results.{shard}"


def launch(shard: int) -> str:
    """Returns the log of wake-ups for a shard's owner."""
    return f"{PREFIX}.launch.{shard}"


def replies(ant_id: AntId, topics_are_dear: bool) -> str:
    """Returns the topic where other services answer the tasks of an ant; all ants share one where topics are dear."""
    return f"{PREFIX}.replies" if topics_are_dear else f"{PREFIX}.replies.{ant_id}"


def inbox(ant_id: AntId, topics_are_dear: bool) -> str:
    """Returns the topic of an ant's inbox; its key is the ant's id."""
    return ANT_INBOXES if topics_are_dear else f"{INBOXES}{ant_id}"
