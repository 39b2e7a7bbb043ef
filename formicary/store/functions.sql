-- Functions of Formicary's database, made after the tables of schema.sql. Each is one round trip and one commit.

-- Takes submissions, in one commit: jobs in state PENDING and their idempotency keys. Repeating a call changes nothing.
-- outcome: CREATED; EXISTING (same key and body: job_id is the first job); KEY_CONFLICT (same key, another body); STALE
-- (p_expects_newest, and definition_id is not the newest version any more: nothing was written for it).
-- What is due at once is so by this server's clock too, by which it is claimed.
-- Keys are inserted in their own order, so that two calls with the same keys wait for each other and never deadlock.
CREATE FUNCTION submit_jobs(
    p_id uuid[], p_job_type_id bigint[], p_definition_id uuid[], p_shard integer[], p_priority integer[],
    p_due_at float8[], p_scheduled_at float8[], p_created_at float8[], p_user_name text[], p_params text[],
    p_labels text[], p_rendered_source text[], p_key text[], p_body_sha256 text[], p_expects_newest boolean[]
) RETURNS TABLE (job_id text, outcome text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_stale boolean[];
BEGIN
    SELECT array_agg(u.expects_newest AND t.definition_id <> u.definition_id
            AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = u.id) ORDER BY u.place)
        INTO v_stale
        FROM unnest(p_id, p_job_type_id, p_definition_id, p_expects_newest) WITH ORDINALITY
            AS u (id, job_type_id, definition_id, expects_newest, place)
        JOIN job_types t ON t.id = u.job_type_id;
    IF array_remove(p_key, NULL) <> '{}' THEN
        INSERT INTO idempotency_keys (key, body_sha256, job_id)
            SELECT DISTINCT ON (u.key) u.key, u.body_sha256, u.id
            FROM unnest(p_key, p_body_sha256, p_id, v_stale) WITH ORDINALITY AS u (key, body_sha256, id, is_stale, place)
            WHERE u.key IS NOT NULL AND NOT u.is_stale ORDER BY u.key, u.place
            ON CONFLICT DO NOTHING;
    END IF;
    WITH created AS (
        INSERT INTO jobs (id, job_type_id, definition_id, shard, state, priority, due_at, scheduled_at, created_at,
            user_name, params, labels, rendered_source)
        SELECT u.id, u.job_type_id, u.definition_id, u.shard, 'PENDING', u.priority,
            CASE WHEN u.scheduled_at IS NULL THEN least(to_timestamp(u.due_at), now()) ELSE to_timestamp(u.due_at) END,
            to_timestamp(u.scheduled_at), to_timestamp(u.created_at), u.user_name, u.params, u.labels, u.rendered_source
        FROM unnest(p_id, p_job_type_id, p_definition_id, p_shard, p_priority, p_due_at, p_scheduled_at, p_created_at,
            p_user_name, p_params, p_labels, p_rendered_source, p_key, v_stale) AS u (id, job_type_id, definition_id,
            shard, priority, due_at, scheduled_at, created_at, user_name, params, labels, rendered_source, key,
            is_stale)
        WHERE NOT u.is_stale AND (u.key IS NULL OR EXISTS (
            SELECT FROM idempotency_keys k WHERE k.group_id = 'default' AND k.key = u.key AND k.job_id = u.id))
        ON CONFLICT DO NOTHING
        RETURNING id, created_at
    )
    INSERT INTO job_history (job_id, at, state, attempt) SELECT c.id, c.created_at, 'PENDING', 1 FROM created c;
    RETURN QUERY
        SELECT coalesce(k.job_id, u.id)::text,
            CASE WHEN k.body_sha256 <> u.body_sha256 THEN 'KEY_CONFLICT'
                 WHEN k.job_id <> u.id THEN 'EXISTING'
                 WHEN u.is_stale AND k.job_id IS NULL THEN 'STALE' ELSE 'CREATED' END
        FROM unnest(p_id, p_key, p_body_sha256, v_stale) WITH ORDINALITY AS u (id, key, body_sha256, is_stale, place)
        LEFT JOIN idempotency_keys k ON k.group_id = 'default' AND k.key = u.key
        ORDER BY u.place;
END $$;

-- Appends lines of output; those already there, or moved to the artifact store, stay as they are. The arrival numbers of one job become visible in
-- their order, because writers of the same job take turns (by one of 16 locks): a follower misses none.
CREATE FUNCTION append_logs(
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
-- queen leads, or has written this part, or the job was deleted. Takes its turn with the writers, so that a line is stored before or refused.
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

-- What the journal changes of a job.
CREATE TYPE job_change AS (
    id uuid, state text, attempt integer, retries_used integer, cancelling boolean, stop_code text, stop_message text,
    elapsed_s double precision, counting_since timestamptz, started_at timestamptz, finished_at timestamptz,
    error_code text, error_message text, waiting_for text, ignores_memo boolean
);

-- What the journal adds to job_history.
CREATE TYPE history_entry AS (
    job_id uuid, at timestamptz, state text, attempt integer, error_code text, note text, task_type text,
    exit_code integer, incarnation text
);

-- The journal: one batch, all or nothing. Fences it (FM001: an epoch differs), checks its claims (FM002: not PENDING
-- any more, or beyond max_concurrency), writes its rows, the positions, and the mark by which a lost answer is found.
-- A batch number that the shard has seen is refused (FM003): so a late statement of a lost connection does nothing.
-- Locks in one order everywhere: leader, shards, jobs, job types. Rows come as composites, in the order of their columns:
-- half the work of one array a column, for the driver and for the server.
-- The planner knows no sizes of arrays and may have no statistics: only index look-ups are left to it.
CREATE FUNCTION journal_commit(
    p_incarnation text, p_batch bigint, p_leader_epoch bigint,
    s_shard integer[], s_epoch bigint[], s_results bytea[], s_launch bytea[],
    p_jobs job_change[], p_tasks tasks[], p_attempts task_attempts[], p_history history_entry[],
    c_id bigint[], c_refusal text[], p_claims uuid[], r_job_type_id bigint[], r_delta integer[], p_artifacts artifacts[]
) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_seqscan = off SET jit = off AS $$
DECLARE
    held_count bigint;
    lost integer[];
    refused uuid[];
BEGIN
    IF p_leader_epoch IS NOT NULL THEN
        PERFORM FROM leases WHERE name = 'leader' AND epoch = p_leader_epoch FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'leadership lost' USING ERRCODE = 'FM001', DETAIL = 'leader';
        END IF;
    END IF;

    IF cardinality(s_shard) > 1 THEN -- two batches with the same shards take turns
        PERFORM FROM leases WHERE shard = ANY (s_shard) ORDER BY shard FOR NO KEY UPDATE;
    END IF;
    UPDATE leases l SET mark_incarnation = p_incarnation, mark_batch = p_batch,
            results_position = coalesce(u.results, l.results_position),
            launch_position = coalesce(u.launch, l.launch_position)
        FROM unnest(s_shard, s_epoch, s_results, s_launch) AS u (shard, epoch, results, launch)
        WHERE l.shard = u.shard AND l.epoch = u.epoch
            AND (l.mark_incarnation = p_incarnation AND l.mark_batch >= p_batch) IS NOT TRUE;
    GET DIAGNOSTICS held_count = ROW_COUNT;
    IF held_count <> cardinality(s_shard) THEN
        SELECT array_agg(u.shard) INTO lost FROM unnest(s_shard, s_epoch) AS u (shard, epoch)
            LEFT JOIN leases l ON l.shard = u.shard WHERE l.epoch IS DISTINCT FROM u.epoch;
        IF lost IS NOT NULL THEN
            RAISE EXCEPTION 'shards lost' USING ERRCODE = 'FM001', DETAIL = array_to_string(lost, ',');
        END IF;
        RAISE EXCEPTION 'batch number used' USING ERRCODE = 'FM003';
    END IF;

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

-- Changes the counters of job types; FM002 with the claims that would exceed a type's max_concurrency.
CREATE FUNCTION change_running(p_claims uuid[], r_job_type_id bigint[], r_delta integer[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    full_types bigint[];
BEGIN
    IF cardinality(r_job_type_id) > 1 THEN -- two calls with the same types take turns
        PERFORM FROM job_types WHERE id = ANY (r_job_type_id) ORDER BY id FOR NO KEY UPDATE;
    END IF;
    WITH changed AS (
        UPDATE job_types t SET running_count = t.running_count + u.delta
            FROM unnest(r_job_type_id, r_delta) AS u (id, delta) WHERE t.id = u.id
            RETURNING t.id, u.delta, t.running_count, t.max_concurrency
    )
    SELECT array_agg(id) INTO full_types FROM changed WHERE delta > 0 AND running_count > max_concurrency;
    IF full_types IS NOT NULL THEN
        RAISE EXCEPTION 'max_concurrency reached' USING ERRCODE = 'FM002', DETAIL = coalesce((
            SELECT string_agg(id::text, ',') FROM jobs
                WHERE id = ANY (p_claims) AND job_type_id = ANY (full_types)), '');
    END IF;
END $$;

-- Claims PENDING jobs for owners elsewhere, under the leader's epoch (FM001 where it differs): state READY, counted and
-- in the history. Returns those that it claimed; a type beyond its max_concurrency keeps the rest waiting.
CREATE FUNCTION claim_ready(p_claims uuid[], p_leader_epoch bigint) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
DECLARE
    claimed uuid[];
BEGIN
    PERFORM FROM leases WHERE name = 'leader' AND epoch = p_leader_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'leadership lost' USING ERRCODE = 'FM001', DETAIL = 'leader';
    END IF;
    PERFORM FROM jobs WHERE id = ANY (p_claims) AND state = 'PENDING' ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM job_types
        WHERE id IN (SELECT job_type_id FROM jobs WHERE id = ANY (p_claims)) ORDER BY id FOR NO KEY UPDATE;
    SELECT array_agg(c.id) INTO claimed FROM (
        SELECT j.id, t.running_count + row_number() OVER (
                PARTITION BY t.id ORDER BY j.priority DESC, j.due_at, j.id) AS place, t.max_concurrency
        FROM jobs j JOIN job_types t ON t.id = j.job_type_id WHERE j.id = ANY (p_claims) AND j.state = 'PENDING') AS c
        WHERE c.max_concurrency IS NULL OR c.place <= c.max_concurrency;
    UPDATE jobs SET state = 'READY', waiting_for = NULL WHERE id = ANY (claimed);
    INSERT INTO job_history (job_id, at, state, attempt)
        SELECT id, clock_timestamp(), 'READY', attempt FROM jobs WHERE id = ANY (claimed);
    UPDATE job_types t SET running_count = t.running_count + c.count
        FROM (SELECT job_type_id, count(*) AS count FROM jobs WHERE id = ANY (claimed) GROUP BY 1) AS c
        WHERE t.id = c.job_type_id;
    RETURN QUERY SELECT unnest(claimed);
END $$;

-- Returns a task's list of artifacts with those of these names marked as expired.
CREATE FUNCTION mark_expired(p_artifacts text, p_names text[]) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT json_agg(CASE WHEN e.artifact ->> 'name' = ANY (p_names) THEN e.artifact || '{"is_expired": true}'
            ELSE e.artifact END ORDER BY e.place)::text
        FROM jsonb_array_elements(p_artifacts::jsonb) WITH ORDINALITY AS e (artifact, place)
$$;

-- Notes which jobs were deleted, by whomever: what else there is of them goes after their rows, a little at a time.
CREATE FUNCTION note_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_jobs (job_id) SELECT id FROM gone ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER note_deleted_jobs AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_jobs();
