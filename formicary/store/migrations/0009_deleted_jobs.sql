-- Jobs can be deleted: what else there is of them goes after their rows.

ALTER TABLE jobs ADD COLUMN held_by bigint;
CREATE INDEX job_commands_by_job ON job_commands (job_id);

CREATE TABLE deleted_jobs (
    job_id     uuid PRIMARY KEY,                     -- was in jobs
    deleted_at timestamptz NOT NULL DEFAULT now()    -- when
);
COMMENT ON TABLE deleted_jobs IS 'Jobs whose tasks, output and artifacts are still to be deleted.';

-- Notes which jobs were deleted, by whomever: what else there is of them goes after their rows, a little at a time.
CREATE FUNCTION note_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_jobs (job_id) SELECT id FROM gone ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER note_deleted_jobs AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_jobs();

-- What jobs left that were deleted before.
INSERT INTO deleted_jobs (job_id)
    SELECT job_id FROM (SELECT job_id FROM tasks UNION SELECT job_id FROM artifacts UNION SELECT job_id FROM log_parts
        UNION SELECT job_id FROM job_history) AS known
    WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = known.job_id);

-- Says that lines up to p_last_arrival are in an object; true: from now on they are read from there. False: another
-- queen leads, or has written this part, or the job was deleted. Takes its turn with the writers, so that a line is stored before or refused.
CREATE OR REPLACE FUNCTION archive_logs(
    p_leader_epoch bigint, p_job_id uuid, p_part integer, p_key text, p_first_arrival bigint, p_last_arrival bigint,
    p_line_count bigint, p_index_start bigint, p_size_bytes bigint,
    a_task_no integer[], a_attempt integer[], a_seqs text[]
) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM leases WHERE name = 'leader' AND epoch = p_leader_epoch FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM jobs WHERE id = p_job_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(170601, uuid_hash(p_job_id) & 15);
    INSERT INTO log_parts (
            job_id, part, key, first_arrival, last_arrival, line_count, index_start, size_bytes)
        VALUES (p_job_id, p_part, p_key, p_first_arrival, p_last_arrival, p_line_count, p_index_start, p_size_bytes)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO log_part_attempts (job_id, task_no, attempt, part, seqs)
        SELECT p_job_id, u.task_no, u.attempt, p_part, u.seqs::int8multirange
        FROM unnest(a_task_no, a_attempt, a_seqs) AS u (task_no, attempt, seqs);
    RETURN true;
END $$;
