-- Formicary's database, PostgreSQL 15 or newer. This file and formicary/store/functions.sql are the newest version, for
-- people and for a fresh database; formicary/store/migrations/ leads every older database to exactly this.

CREATE TABLE colony (
    only_one       boolean PRIMARY KEY DEFAULT true CHECK (only_one), -- always true: there is one row
    schema_version integer NOT NULL,                 -- number of the newest migration applied
    shard_count    integer NOT NULL,                 -- fixed at creation: hash(job id) mod shard_count
    created_at     timestamptz NOT NULL DEFAULT now(), -- of the database
    lifecycle_seq  bigint NOT NULL DEFAULT 0,        -- job_history is published on the bus up to here
    id             uuid NOT NULL DEFAULT gen_random_uuid() -- tells colonies apart that share a server
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

CREATE TABLE queens (
    id          text PRIMARY KEY,                    -- queen id
    incarnation text NOT NULL,                       -- which life of that queen
    expires_at  timestamptz NOT NULL                 -- renewed with its leases; counts for nothing afterwards
) WITH (fillfactor = 20);
COMMENT ON TABLE queens IS 'Queens that live: the shards are spread over them.';

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
    waiting_for     text,                            -- why it waits, for people
    ignores_memo    boolean NOT NULL DEFAULT false,  -- restarted hard: its tasks take no earlier results
    held_by         bigint                           -- in job_commands: until it is done nothing of the job expires
) WITH (fillfactor = 70);
COMMENT ON TABLE jobs IS 'Job requests and their state.';
CREATE INDEX jobs_pending ON jobs (job_type_id, priority DESC, due_at, id) WHERE state = 'PENDING';
CREATE INDEX jobs_scheduled ON jobs (due_at) WHERE state = 'PENDING' AND scheduled_at IS NOT NULL;
CREATE INDEX jobs_live ON jobs (shard, job_type_id)
    WHERE state IN ('READY', 'EXECUTING', 'PAUSED', 'MANUAL_APPROVAL_REQUIRED');
CREATE INDEX jobs_by_type ON jobs (job_type_id, id DESC);
CREATE INDEX jobs_by_state ON jobs (state, id DESC);

CREATE TABLE deleted_jobs (
    job_id     uuid PRIMARY KEY,                     -- was in jobs
    deleted_at timestamptz NOT NULL DEFAULT now()    -- when
);
COMMENT ON TABLE deleted_jobs IS 'Jobs whose tasks, output and artifacts are still to be deleted.';

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
    started_at    timestamptz,                       -- by the clock of the ant, with a memo of the owner
    finished_at   timestamptz,                       -- the same; of the owner where no ant ended it
    cache         text,                              -- JSON object: what became of the attempt's cache
    memo          text,                              -- digest of its inputs, under which others find a COMPLETED result
    reused_from   text,                              -- JSON object: the run whose result it took
    PRIMARY KEY (job_id, task_no)
) WITH (fillfactor = 45);
COMMENT ON TABLE tasks IS 'The present state of every task that ever left PENDING.';
CREATE INDEX tasks_with_cache ON tasks (job_id) WHERE cache IS NOT NULL;
CREATE INDEX tasks_by_memo ON tasks (memo) WHERE memo IS NOT NULL;

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
    cache         text,                              -- JSON object: what became of its cache
    memo          text,                              -- digest of its inputs, under which others find a COMPLETED result
    reused_from   text,                              -- JSON object: the run whose result it took
    PRIMARY KEY (job_id, task_no, attempt)
);
COMMENT ON TABLE task_attempts IS 'Ended attempts that a newer one replaced in tasks.';
CREATE INDEX task_attempts_with_cache ON task_attempts (job_id) WHERE cache IS NOT NULL;
CREATE INDEX task_attempts_by_memo ON task_attempts (memo) WHERE memo IS NOT NULL;

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

CREATE TABLE job_history (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of writing
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(), -- the transaction that wrote it
    job_id      uuid NOT NULL,                       -- in jobs
    at          timestamptz NOT NULL,                -- when it happened
    state       text NOT NULL,                       -- the state reached
    attempt     integer NOT NULL,                    -- of the job, or of the task
    error_code  text,                                -- of a failure
    note        text,                                -- what happened, for people
    task_type   text,                                -- the change is this task's; NULL: the job's
    exit_code   integer,                             -- of the task's attempt
    incarnation text                                 -- of the ant that the task's attempt was dispatched to
);
COMMENT ON TABLE job_history IS 'Every change of a job''s state, in order, and those of its tasks where asked for.';
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
CREATE INDEX job_commands_by_job ON job_commands (job_id);

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
