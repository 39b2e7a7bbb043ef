-- Output moves to the artifact store when its job has ended.

CREATE TABLE log_parts (
    job_id        uuid NOT NULL,                     -- in jobs
    part          integer NOT NULL,                  -- from 1, in the order of the lines
    key           text NOT NULL,                     -- of the object in the artifact store
    first_arrival bigint NOT NULL,                   -- of its lines
    last_arrival  bigint NOT NULL,                   -- lines up to here are in objects, whatever task_logs still holds
    line_count    bigint NOT NULL,                   -- in the object
    index_start   bigint NOT NULL,                   -- where in the object its index begins
    size_bytes    bigint NOT NULL,                   -- of the object
    archived_at   timestamptz NOT NULL DEFAULT now(), -- when
    PRIMARY KEY (job_id, part)
);
COMMENT ON TABLE log_parts IS 'Output that was moved to the artifact store.';

CREATE TABLE log_part_attempts (
    job_id  uuid NOT NULL,                           -- in jobs
    task_no integer NOT NULL,                        -- index in the definition
    attempt integer NOT NULL,                        -- from 1
    part    integer NOT NULL,                        -- in log_parts
    seqs    int8multirange NOT NULL,                 -- the lines of the attempt that are in the part
    PRIMARY KEY (job_id, task_no, attempt, part)
);
COMMENT ON TABLE log_part_attempts IS 'Which lines were moved: those that come again must not be stored again.';

CREATE OR REPLACE FUNCTION append_logs(
    p_job_id uuid[], p_task_no integer[], p_attempt integer[], p_seq bigint[], p_stream text[], p_at float8[],
    p_line text[]
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(170601, turn.n) FROM (
        SELECT DISTINCT uuid_hash(job) & 15 AS n FROM unnest(p_job_id) AS job ORDER BY n) AS turn;
    IF NOT EXISTS (SELECT FROM log_parts WHERE job_id = ANY (ARRAY(SELECT DISTINCT unnest(p_job_id)))) THEN
        INSERT INTO task_logs (job_id, task_no, attempt, seq, stream, at, line)
            SELECT unnest(p_job_id), unnest(p_task_no), unnest(p_attempt), unnest(p_seq), unnest(p_stream),
                to_timestamp(unnest(p_at)), unnest(p_line)
            ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    INSERT INTO task_logs (job_id, task_no, attempt, seq, stream, at, line)
        SELECT u.job_id, u.task_no, u.attempt, u.seq, u.stream, to_timestamp(u.at), u.line
        FROM unnest(p_job_id, p_task_no, p_attempt, p_seq, p_stream, p_at, p_line) WITH ORDINALITY
            AS u (job_id, task_no, attempt, seq, stream, at, line, place)
        WHERE NOT EXISTS (SELECT FROM log_part_attempts AS a WHERE a.job_id = u.job_id AND a.task_no = u.task_no
            AND a.attempt = u.attempt AND a.seqs @> u.seq)
        ORDER BY u.place ON CONFLICT DO NOTHING;
END $$;

-- Says that lines up to p_last_arrival are in an object; true: from now on they are read from there. False: another
-- queen leads, or has written this part. Takes its turn with the writers, so that a line is stored before or refused.
CREATE FUNCTION archive_logs(
    p_leader_epoch bigint, p_job_id uuid, p_part integer, p_key text, p_first_arrival bigint, p_last_arrival bigint,
    p_line_count bigint, p_index_start bigint, p_size_bytes bigint,
    a_task_no integer[], a_attempt integer[], a_seqs text[]
) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM leases WHERE name = 'leader' AND epoch = p_leader_epoch FOR SHARE;
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
