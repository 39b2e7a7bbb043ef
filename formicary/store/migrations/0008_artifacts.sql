-- Artifacts have rows: who needs which content, and until when.

ALTER TABLE colony ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE artifacts (
    job_id     uuid NOT NULL,                        -- in jobs
    task_no    integer NOT NULL,                     -- index in the definition
    attempt    integer NOT NULL,                     -- that left it, and whose end was accepted; below 0: is to take it
    name       text NOT NULL,                        -- relative path, unique in the attempt
    sha256     text NOT NULL,                        -- of the content, by which the artifact store keeps it
    size_bytes bigint NOT NULL,                      -- of the content
    expires_at timestamptz,                          -- deleted then, once its job has ended; NULL: with its job
    PRIMARY KEY (job_id, task_no, attempt, name)
);
COMMENT ON TABLE artifacts IS 'Who needs which content of the artifact store: what no row names may be deleted there.';
CREATE INDEX artifacts_by_content ON artifacts (sha256);
CREATE INDEX artifacts_pinned ON artifacts (job_id) WHERE attempt < 0;
CREATE INDEX artifacts_by_expiry ON artifacts (expires_at) WHERE expires_at IS NOT NULL;

-- Jobs of before keep what they left, without an end.
INSERT INTO artifacts (job_id, task_no, attempt, name, sha256, size_bytes)
    SELECT t.job_id, t.task_no, t.attempt, e ->> 'name', e ->> 'sha256', (e ->> 'size_bytes')::bigint
    FROM (SELECT job_id, task_no, attempt, artifacts FROM tasks
        UNION ALL SELECT job_id, task_no, attempt, artifacts FROM task_attempts) AS t
    CROSS JOIN LATERAL jsonb_array_elements(t.artifacts::jsonb) AS e
    WHERE t.artifacts IS NOT NULL ON CONFLICT DO NOTHING;

DROP FUNCTION journal_commit(text, bigint, bigint, integer[], bigint[], bytea[], bytea[], job_change[], tasks[],
    task_attempts[], history_entry[], bigint[], text[], uuid[], bigint[], integer[]);

CREATE FUNCTION journal_commit(
    p_incarnation text, p_batch bigint, p_leader_epoch bigint,
    s_shard integer[], s_epoch bigint[], s_results bytea[], s_launch bytea[],
    p_jobs job_change[], p_tasks tasks[], p_attempts task_attempts[], p_history history_entry[],
    c_id bigint[], c_refusal text[], p_claims uuid[], r_job_type_id bigint[], r_delta integer[], p_artifacts artifacts[]
) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_seqscan = off SET jit = off AS $$
DECLARE
    lost integer[];
    is_used boolean;
    refused uuid[];
BEGIN
    IF p_leader_epoch IS NOT NULL THEN
        PERFORM FROM leases WHERE name = 'leader' AND epoch = p_leader_epoch FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'leadership lost' USING ERRCODE = 'FM001', DETAIL = 'leader';
        END IF;
    END IF;

    SELECT array_agg(u.shard) FILTER (WHERE l.epoch IS DISTINCT FROM u.epoch),
           bool_or(l.mark_incarnation = p_incarnation AND l.mark_batch >= p_batch)
        INTO lost, is_used
        FROM unnest(s_shard, s_epoch) AS u (shard, epoch)
        LEFT JOIN (SELECT * FROM leases WHERE leases.shard = ANY (s_shard) ORDER BY shard FOR NO KEY UPDATE) AS l
            ON l.shard = u.shard;
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION 'shards lost' USING ERRCODE = 'FM001', DETAIL = array_to_string(lost, ',');
    END IF;
    IF is_used THEN
        RAISE EXCEPTION 'batch number used' USING ERRCODE = 'FM003';
    END IF;
    UPDATE leases l SET mark_incarnation = p_incarnation, mark_batch = p_batch,
            results_position = coalesce(u.results, l.results_position),
            launch_position = coalesce(u.launch, l.launch_position)
        FROM unnest(s_shard, s_results, s_launch) AS u (shard, results, launch) WHERE l.shard = u.shard;

    IF cardinality(p_claims) > 0 THEN
        SELECT array_agg(c.id) INTO refused FROM unnest(p_claims) AS c (id)
            LEFT JOIN (SELECT id FROM jobs WHERE id = ANY (p_claims) AND state = 'PENDING' ORDER BY id
                FOR NO KEY UPDATE) AS j ON j.id = c.id
            WHERE j.id IS NULL;
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION 'claims refused' USING ERRCODE = 'FM002', DETAIL = array_to_string(refused, ',');
        END IF;
    END IF;

    IF cardinality(p_jobs) > 0 THEN
        UPDATE jobs SET
            state = u.state, attempt = u.attempt, retries_used = u.retries_used, cancelling = u.cancelling, stop_code
            = u.stop_code, stop_message = u.stop_message, elapsed_s = u.elapsed_s, counting_since = u.counting_since,
            started_at = u.started_at, finished_at = u.finished_at, error_code = u.error_code, error_message =
            u.error_message, waiting_for = u.waiting_for, ignores_memo = u.ignores_memo
        FROM unnest(p_jobs) AS u WHERE jobs.id = u.id;
    END IF;

    IF cardinality(p_tasks) > 0 THEN
        INSERT INTO tasks SELECT * FROM unnest(p_tasks) ON CONFLICT (job_id, task_no) DO UPDATE SET
            state = excluded.state, attempt = excluded.attempt, job_attempt = excluded.job_attempt, retries_used =
            excluded.retries_used, polls_used = excluded.polls_used, ants_lost = excluded.ants_lost, is_excepted =
            excluded.is_excepted, epoch = excluded.epoch, incarnation = excluded.incarnation, not_before =
            excluded.not_before, exit_code = excluded.exit_code, error_code = excluded.error_code, error_message =
            excluded.error_message, outputs = excluded.outputs, artifacts = excluded.artifacts, dispatched_at =
            excluded.dispatched_at, started_at = excluded.started_at, finished_at = excluded.finished_at,
            cache = excluded.cache, memo = excluded.memo, reused_from = excluded.reused_from;
    END IF;

    IF cardinality(p_attempts) > 0 THEN
        INSERT INTO task_attempts SELECT * FROM unnest(p_attempts) ON CONFLICT DO NOTHING;
    END IF;

    IF cardinality(p_artifacts) > 0 THEN
        INSERT INTO artifacts SELECT * FROM unnest(p_artifacts) ON CONFLICT DO NOTHING;
    END IF;

    IF cardinality(p_history) > 0 THEN
        INSERT INTO job_history (job_id, at, state, attempt, error_code, note, task_type, exit_code, incarnation)
            SELECT * FROM unnest(p_history);
    END IF;

    IF cardinality(c_id) > 0 THEN
        UPDATE job_commands c SET done_at = clock_timestamp(), refusal = u.refusal
            FROM unnest(c_id, c_refusal) AS u (id, refusal) WHERE c.id = u.id;
    END IF;

    IF cardinality(r_job_type_id) > 0 THEN
        PERFORM change_running(p_claims, r_job_type_id, r_delta);
    END IF;
END $$;

-- Returns a task's list of artifacts with those of these names marked as expired.
CREATE FUNCTION mark_expired(p_artifacts text, p_names text[]) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT json_agg(CASE WHEN e.artifact ->> 'name' = ANY (p_names) THEN e.artifact || '{"is_expired": true}'
            ELSE e.artifact END ORDER BY e.place)::text
        FROM jsonb_array_elements(p_artifacts::jsonb) WITH ORDINALITY AS e (artifact, place)
$$;
