"""The process's metrics. Each is updated once per batch, never once per task."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

JOBS_SUBMITTED = Counter("formicary_jobs_submitted", "Jobs accepted by this queen's manager.")
JOBS_ENDED = Counter("formicary_jobs_ended", "Job attempts ended by this queen.", ["state"])
JOBS_LIVE = Gauge("formicary_jobs_live", "Jobs in the memory of this queen, by state.", ["state"])
TASKS_ENDED = Counter("formicary_tasks_ended", "Task attempts ended, as this queen committed them.", ["state"])
TASKS_DISPATCHED = Counter("formicary_tasks_dispatched", "Task attempts sent to ants by this queen.")
COMMIT_SECONDS = Histogram(
    "formicary_journal_commit_seconds",
    "Duration of a commit of the journal.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
COMMIT_ROWS = Counter("formicary_journal_rows", "Rows written by the journal.", ["table"])
BROKER_RECONNECTS = Counter("formicary_broker_reconnects", "Connections to the broker that were made anew.")
LOG_LINES_WRITTEN = Counter("formicary_log_lines_written", "Lines of tasks' output stored by this queen.")
COMMANDS_HANDLED = Counter(
    "formicary_commands_handled", "Commands of other services that this queen dealt with, by outcome.", ["outcome"]
)
LIFECYCLE_EVENTS = Counter("formicary_lifecycle_events", "Changes of jobs and tasks that this queen published.")
ANTS_LIVE = Gauge("formicary_ants_live", "Ants that hold a lease, as this queen sees them.")


def render() -> bytes:
    """Returns all metrics in the text format of Prometheus."""
    return generate_latest()
