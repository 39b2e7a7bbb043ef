"""The process's metrics. Each is updated once per batch or once per second, never once per task."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

JOBS_SUBMITTED = Counter("formicary_jobs_submitted", "Jobs accepted by this queen's manager.")
JOBS_ENDED = Counter(
    "formicary_jobs_ended", "Jobs ended by this queen, by state; a restarted one ends again.", ["state"]
)
JOBS_LIVE = Gauge("formicary_jobs_live", "Jobs in the memory of this queen.")
TASKS_ENDED = Counter(
    "formicary_tasks_ended",
    "Tasks ended, by state, as this queen committed them; once for all their retries.",
    ["state"],
)
TASKS_DISPATCHED = Counter("formicary_tasks_dispatched", "Dispatches sent to ants by this queen, repeated ones too.")
TASKS_WAITING = Gauge("formicary_tasks_waiting", "Tasks of this queen that could run and wait for room in an ant.")
TASKS_IN_FLIGHT = Gauge("formicary_tasks_in_flight", "Attempts of this queen's jobs that are with ants.")
COMMIT_SECONDS = Histogram(
    "formicary_journal_commit_seconds",
    "Duration of a commit of the journal.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
COMMIT_ROWS = Counter("formicary_journal_rows", "Rows written by the journal.", ["table"])
LOG_LINES_WRITTEN = Counter("formicary_log_lines_written", "Lines of tasks' output stored by this queen.")
LOG_LINES_ARCHIVED = Counter("formicary_log_lines_archived", "Lines moved to the artifact store by this queen.")
COMMANDS_HANDLED = Counter(
    "formicary_commands_handled", "Commands of other services that this queen dealt with, by outcome.", ["outcome"]
)
LIFECYCLE_EVENTS = Counter("formicary_lifecycle_events", "Changes of jobs and tasks that this queen published.")
CACHES_EVICTED = Counter("formicary_caches_evicted", "Archives of caches that this queen deleted.")
CACHE_BYTES = Gauge("formicary_cache_bytes", "What all caches take, packed; 0 where another queen looks after them.")
ARTIFACTS_EXPIRED = Counter("formicary_artifacts_expired", "Artifacts that this queen let go of.")
CONTENTS_DELETED = Counter(
    "formicary_artifact_contents_deleted", "Contents that this queen deleted from the artifact store."
)
JOBS_DELETED = Counter("formicary_jobs_deleted", "Jobs that this queen deleted because they ended long ago.")
ANTS_LIVE = Gauge("formicary_ants_live", "Ants registered with this queen and not lost.")


def render() -> bytes:
    """Returns all metrics in the text format of Prometheus."""
    return generate_latest()
