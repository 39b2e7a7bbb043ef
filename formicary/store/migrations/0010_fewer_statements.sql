-- Fewer statements in the path of every commit; what they do is the same.

CREATE OR REPLACE FUNCTION submit_jobs(
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

CREATE OR REPLACE FUNCTION journal_commit(
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

CREATE OR REPLACE FUNCTION change_running(p_claims uuid[], r_job_type_id bigint[], r_delta integer[]) RETURNS void
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
