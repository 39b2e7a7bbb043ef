-- Queens tell each other that they live, so that the shards can be spread evenly.
CREATE TABLE queens (
    id          text PRIMARY KEY,                    -- queen id
    incarnation text NOT NULL,                       -- which life of that queen
    expires_at  timestamptz NOT NULL                 -- renewed with its leases; counts for nothing afterwards
) WITH (fillfactor = 20);
COMMENT ON TABLE queens IS 'Queens that live: the shards are spread over them.';
