-- When caches were used last: job ids begin with the time, so that recent ones are a range. No column that every task
-- changes is in these indexes; one that is would keep all updates of tasks from staying in their page.

CREATE INDEX tasks_with_cache ON tasks (job_id) WHERE cache IS NOT NULL;
CREATE INDEX task_attempts_with_cache ON task_attempts (job_id) WHERE cache IS NOT NULL;
