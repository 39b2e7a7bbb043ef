-- Formicary's database, PostgreSQL 15 or newer. This file and formicary/store/functions.sql are the newest version, for
-- people and for a fresh database; formicary/store/migrations/ leads every older database to exactly this.

CREATE TABLE colony (
    only_one       boolean PRIMARY KEY DEFAULT true CHECK (only_one), -- always true: there is one row
    schema_version integer NOT NULL,                 -- number of the newest migration applied
    shard_count    integer NOT NULL,                 -- fixed at creation: hash(job id) mod shard_count
    created_at     timestamptz NOT NULL DEFAULT now() -- of the database
);
COMMENT ON TABLE colony IS 'One row: what is true of the whole database.';

CREATE TABLE leases (
    name              text PRIMARY KEY,              -- 'shard-<number>' or 'leader'
    shard             integer UNIQUE,                -- NULL for the leader
    owner             text,                          -- queen id; NULL: free
    owner_incarnation text,                          -- which life of that queen
    epoch             bigint NOT NULL DEFAULT 0,     -- rises with every take-over; fences every journal statement
    expires_at        timestamptz NOT NULL DEFAULT '-infinity', -- by the database's clock
    results_position  bytea,                         -- results log read so far; NULL: from the start
    launch_position   bytea,                         -- launch log read so far; NULL: from the start
    mark_incarnation  text,                          -- queen incarnation of the last journal batch …
    mark_batch        bigint NOT NULL DEFAULT 0      -- … and its number: tells whether an unknown commit happened
) WITH (fillfactor = 20);
COMMENT ON TABLE leases IS 'Ownership of shards and of the scheduler''s leadership.';

CREATE TABLE definitions (
    id          uuid PRIMARY KEY,                    -- UUID version 7
    group_id    text NOT NULL DEFAULT 'default',     -- whose it is
    job_type    text NOT NULL,                       -- its name, unique per group
    version     integer NOT NULL,                    -- from 1 per job type
    source      text NOT NULL,                       -- the YAML as uploaded
    sha256      text NOT NULL,                       -- of source: an unchanged upload makes no new version
    created_at  timestamptz NOT NULL DEFAULT now(),  -- of this version
    UNIQUE (group_id, job_type, version)
);
COMMENT ON TABLE definitions IS 'Every version of every job definition, never changed.';

CREATE TABLE job_types (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- short name of the type inside the database
    group_id        text NOT NULL DEFAULT 'default', -- whose it is
    job_type        text NOT NULL,                   -- its name, unique per group
    definition_id   uuid NOT NULL REFERENCES definitions, -- the newest version
    version         integer NOT NULL,                -- its number
    description     text NOT NULL DEFAULT '',        -- of the newest version
    max_concurrency integer,                         -- of the newest version; NULL: no limit
    running_count   integer NOT NULL DEFAULT 0,      -- jobs claimed and not ended; PAUSED counts
    UNIQUE (group_id, job_type)
) WITH (fillfactor = 50);
COMMENT ON TABLE job_types IS 'The newest version and the counters of each job type.';

-- No foreign keys here: definitions and job types are never deleted, and each check would cost a submit two look-ups
-- and a lock on the row of its job type.
CREATE TABLE jobs (
    id              uuid PRIMARY KEY,                -- UUID version 7
    group_id        text NOT NULL DEFAULT 'default', -- whose it is
    job_type_id     bigint NOT NULL,                 -- in job_types
    definition_id   uuid NOT NULL,                   -- in definitions: the version it runs
    shard           integer NOT NULL,                -- hash(id) mod shard_count
    state           text NOT NULL,                   -- PENDING, READY, EXECUTING, … (formicary.model.states)
    priority        integer NOT NULL DEFAULT 0,      -- higher first
    due_at          timestamptz NOT NULL,            -- not claimed before: scheduled_at or created_at
    scheduled_at    timestamptz,                     -- as asked for; NULL: at once
    created_at      timestamptz NOT NULL,            -- of the submission
    user_name       text,                            -- who submitted it
    params          text NOT NULL DEFAULT '{}',      -- JSON object
    labels          text NOT NULL DEFAULT '{}',      -- JSON object of strings
    rendered_source text,                            -- dynamic_template_tasks: the document rendered for this job
    attempt         integer NOT NULL DEFAULT 1,      -- job attempts, the present one included
    retries_used    integer NOT NULL DEFAULT 0,      -- of the job's own `retry`
    cancelling      boolean NOT NULL DEFAULT false,  -- a cancel was accepted, the job has not ended yet
    stop_code       text,                            -- why nothing new starts in this attempt: an error code …
    stop_message    text,                            -- … and a sentence
    elapsed_s       double precision NOT NULL DEFAULT 0, -- counted by the timeout before counting_since
    counting_since  timestamptz,                     -- NULL: the timeout stands still
    started_at      timestamptz,                     -- of the first claim
    finished_at     timestamptz,                     -- of the newest attempt
    error_code      text,                            -- why it failed
    error_message   text,                            -- the same as a sentence that says what to do
    waiting_for     text                             -- why it waits, for people
) WITH (fillfactor = 70);
COMMENT ON TABLE jobs IS 'Job requests and their state.';
CREATE INDEX jobs_pending ON jobs (job_type_id, priority DESC, due_at, id) WHERE state = 'PENDING';
CREATE INDEX jobs_scheduled ON jobs (due_at) WHERE state = 'PENDING' AND scheduled_at IS NOT NULL;
CREATE INDEX jobs_live ON jobs (shard, job_type_id)
    WHERE state IN ('READY', 'EXECUTING', 'PAUSED', 'MANUAL_APPROVAL_REQUIRED');
CREATE INDEX jobs_by_type ON jobs (job_type_id, id DESC);
CREATE INDEX jobs_by_state ON jobs (state, id DESC);

CREATE TABLE tasks (
    job_id        uuid NOT NULL,                     -- in jobs
    task_no       integer NOT NULL,                  -- index in the definition
    state         text NOT NULL,                     -- READY, EXECUTING, … (formicary.model.states)
    attempt       integer NOT NULL,                  -- dispatches so far; the row describes the newest
    job_attempt   integer NOT NULL,                  -- in which the present state was reached
    retries_used  integer NOT NULL,                  -- of `retry`, in this job attempt
    polls_used    integer NOT NULL,                  -- of `retry`, by EXECUTING
    ants_lost     integer NOT NULL,                  -- ants lost under it, in this job attempt
    is_excepted   boolean NOT NULL,                  -- SKIPPED by `except`, counts as passed
    epoch         bigint NOT NULL,                   -- of the owner that dispatched the newest attempt
    incarnation   text,                              -- of the ant that it was dispatched to
    not_before    timestamptz,                       -- a retry or poll is due then
    exit_code     integer,                           -- of the newest attempt, as the next columns
    error_code    text,                              -- why it failed
    error_message text,                              -- the same as a sentence that says what to do
    outputs       text,                              -- JSON object
    artifacts     text,                              -- JSON list of {name, sha256, size_bytes}
    dispatched_at timestamptz,                       -- when the owner sent it
    started_at    timestamptz,                       -- by the clock of the ant
    finished_at   timestamptz,                       -- by the clock of the ant, or of the owner where no ant ended it
    PRIMARY KEY (job_id, task_no)
) WITH (fillfactor = 45);
COMMENT ON TABLE tasks IS 'The present state of every task that ever left PENDING.';

CREATE TABLE task_attempts (
    job_id        uuid NOT NULL,                     -- in jobs
    task_no       integer NOT NULL,                  -- index in the definition
    attempt       integer NOT NULL,                  -- from 1
    job_attempt   integer NOT NULL,                  -- that it belonged to
    state         text NOT NULL,                     -- how it ended; CANCELLED for declined and lost ones
    incarnation   text,                              -- of the ant that it was dispatched to
    exit_code     integer,                           -- as reported, also late
    error_code    text,                              -- why it failed
    error_message text,                              -- the same as a sentence
    outputs       text,                              -- JSON object; recorded, used by nobody
    artifacts     text,                              -- JSON list of {name, sha256, size_bytes}
    dispatched_at timestamptz,                       -- when the owner sent it
    started_at    timestamptz,                       -- by the clock of the ant
    finished_at   timestamptz,                       -- of its end
    PRIMARY KEY (job_id, task_no, attempt)
);
COMMENT ON TABLE task_attempts IS 'Ended attempts that a newer one replaced in tasks.';

CREATE TABLE job_history (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of writing
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(), -- lets a cursor wait for commits still under way
    job_id      uuid NOT NULL,                       -- in jobs
    at          timestamptz NOT NULL,                -- when it happened
    state       text NOT NULL,                       -- the state reached
    attempt     integer NOT NULL,                    -- of the job
    error_code  text,                                -- of a failure
    note        text                                 -- what happened, for people
);
COMMENT ON TABLE job_history IS 'Every change of a job''s state, in order.';
CREATE INDEX job_history_by_job ON job_history (job_id, seq);

CREATE TABLE job_commands (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of issue
    job_id     uuid NOT NULL,                        -- in jobs
    shard      integer NOT NULL,                     -- of the job
    kind       text NOT NULL,                        -- cancel, pause, resume, restart
    body       text NOT NULL DEFAULT '{}',           -- JSON object
    user_name  text,                                 -- who issued it
    created_at timestamptz NOT NULL DEFAULT now(),   -- when
    done_at    timestamptz,                          -- applied or refused; NULL: open
    refusal    text                                  -- why the owner refused it
);
COMMENT ON TABLE job_commands IS 'Commands from people, until the owner of the job applied or refused them.';
CREATE INDEX job_commands_open ON job_commands (shard, id) WHERE done_at IS NULL;

CREATE TABLE idempotency_keys (
    group_id    text NOT NULL DEFAULT 'default',     -- unique within it
    key         text NOT NULL,                       -- as sent by the client
    body_sha256 text NOT NULL,                       -- of the submission: another body is a conflict
    job_id      uuid NOT NULL,                       -- the first job of this key
    created_at  timestamptz NOT NULL DEFAULT now(),  -- from when the 7 days run
    PRIMARY KEY (group_id, key)
);
COMMENT ON TABLE idempotency_keys IS 'Submissions already taken, kept for 7 days.';
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE task_logs (
    job_id  uuid NOT NULL,                           -- in jobs
    task_no integer NOT NULL,                        -- index in the definition
    attempt integer NOT NULL,                        -- from 1
    seq     bigint NOT NULL,                         -- from 1 per attempt
    stream  text NOT NULL,                           -- stdout, stderr or system
    at      timestamptz NOT NULL,                    -- by the clock of the ant
    line    text NOT NULL,                           -- masked, without its line end
    arrival bigint GENERATED ALWAYS AS IDENTITY,     -- order of arrival, for followers
    PRIMARY KEY (job_id, task_no, attempt, seq)
);
COMMENT ON TABLE task_logs IS 'Output of tasks, line by line.';
CREATE INDEX task_logs_by_arrival ON task_logs (job_id, arrival);

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
    INSERT INTO idempotency_keys (key, body_sha256, job_id)
        SELECT DISTINCT ON (u.key) u.key, u.body_sha256, u.id
        FROM unnest(p_key, p_body_sha256, p_id, v_stale) WITH ORDINALITY AS u (key, body_sha256, id, is_stale, place)
        WHERE u.key IS NOT NULL AND NOT u.is_stale ORDER BY u.key, u.place
        ON CONFLICT DO NOTHING;
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

-- Appends lines of output; those already there stay as they are. The arrival numbers of one job become visible in
-- their order, because writers of the same job take turns (by one of 16 locks): a follower misses none.
CREATE FUNCTION append_logs(
    p_job_id uuid[], p_task_no integer[], p_attempt integer[], p_seq bigint[], p_stream text[], p_at float8[],
    p_line text[]
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(170601, turn.n) FROM (
        SELECT DISTINCT uuid_hash(job) & 15 AS n FROM unnest(p_job_id) AS job ORDER BY n) AS turn;
    INSERT INTO task_logs (job_id, task_no, attempt, seq, stream, at, line)
        SELECT unnest(p_job_id), unnest(p_task_no), unnest(p_attempt), unnest(p_seq), unnest(p_stream),
            to_timestamp(unnest(p_at)), unnest(p_line)
        ON CONFLICT DO NOTHING;
END $$;

-- What the journal changes of a job.
CREATE TYPE job_change AS (
    id uuid, state text, attempt integer, retries_used integer, cancelling boolean, stop_code text, stop_message text,
    elapsed_s double precision, counting_since timestamptz, started_at timestamptz, finished_at timestamptz,
    error_code text, error_message text, waiting_for text
);

-- What the journal adds to job_history.
CREATE TYPE history_entry AS (
    job_id uuid, at timestamptz, state text, attempt integer, error_code text, note text
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
    c_id bigint[], c_refusal text[], p_claims uuid[], r_job_type_id bigint[], r_delta integer[]
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
            u.error_message, waiting_for = u.waiting_for
        FROM unnest(p_jobs) AS u WHERE jobs.id = u.id;
    END IF;

    IF cardinality(p_tasks) > 0 THEN
        INSERT INTO tasks SELECT * FROM unnest(p_tasks) ON CONFLICT (job_id, task_no) DO UPDATE SET
            state = excluded.state, attempt = excluded.attempt, job_attempt = excluded.job_attempt, retries_used =
            excluded.retries_used, polls_used = excluded.polls_used, ants_lost = excluded.ants_lost, is_excepted =
            excluded.is_excepted, epoch = excluded.epoch, incarnation = excluded.incarnation, not_before =
            excluded.not_before, exit_code = excluded.exit_code, error_code = excluded.error_code, error_message =
            excluded.error_message, outputs = excluded.outputs, artifacts = excluded.artifacts, dispatched_at =
            excluded.dispatched_at, started_at = excluded.started_at, finished_at = excluded.finished_at;
    END IF;

    IF cardinality(p_attempts) > 0 THEN
        INSERT INTO task_attempts SELECT * FROM unnest(p_attempts) ON CONFLICT DO NOTHING;
    END IF;

    IF cardinality(p_history) > 0 THEN
        INSERT INTO job_history (job_id, at, state, attempt, error_code, note) SELECT * FROM unnest(p_history);
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
    PERFORM FROM job_types WHERE id = ANY (r_job_type_id) ORDER BY id FOR NO KEY UPDATE;
    UPDATE job_types t SET running_count = t.running_count + u.delta
        FROM unnest(r_job_type_id, r_delta) AS u (id, delta) WHERE t.id = u.id;
    SELECT array_agg(t.id) INTO full_types
        FROM unnest(r_job_type_id, r_delta) AS u (id, delta) JOIN job_types t ON t.id = u.id
        WHERE u.delta > 0 AND t.running_count > t.max_concurrency;
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
