"""The sentences of ``docs/events.md``; tables and examples come from the types."""

from typing import Final

HEAD: Final = """
# Events

<!-- Made by `python -m formicary.events.describe` from the event types; a test finds it stale. -->

How other services speak to a colony over its message broker, and what queens and ants tell each other. Submitting,
cancelling and following jobs needs nothing but the broker's own client: see [the
example](examples/bus-service/README.md). The same is described for tools in [asyncapi.yaml](asyncapi.yaml), AsyncAPI
3.

Bodies are JSON in UTF-8. Fields are only ever added: ignore those that you do not know. Commands refuse fields that
they do not know, so that a misspelt one is not ignored. On the [memory broker](brokers/memory.md) there is nobody
else to speak to.
"""

BROKERS: Final = """
## On the wire

| | Redis | Kafka | Pulsar |
| --- | --- | --- | --- |
| topic | a stream of that name (behind the URL's `prefix`) | a topic with one partition | `persistent://public/default/<topic>`, or the namespace of the URL |
| body | field `b` | value | payload |
| key | field `k` | record key | partition key |
| headers | field `h`, a JSON object of strings | record headers | properties |
| publish | `XADD formicary.commands * k KEY b BODY` | to partition 0, `acks=all` | without batching, or with |
| read from now on | `XREAD` after `last-generated-id` | `assign`, `seek` to the end | a reader from `latest` |

A queen makes `formicary.commands`, its dead letters and `formicary.lifecycle` when it starts, so that a consumer that
comes before the first message finds them. All others are made when they are first used, on Kafka too, which makes
none by itself here. A topic that you make before them needs one partition and `max.message.bytes=4456448`. The header `traceparent` (W3C) of a command is handed on to its
answer.
"""  # noqa: E501 - rows of a table cannot be broken

DELIVERY: Final = """
## What to reckon with

- **At least once.** Anything may come twice, after a lost connection or a queen's death. Commands carry an
  `idempotency_key`, changes a `sequence`, answers your `correlation_id`.
- **Order** is kept per key within a topic. The changes of one job come in their order.
- **`sequence`** numbers the changes of the whole colony. It grows, with gaps. After a change of leadership some
  changes come again, with the numbers that they had: remember the highest number per job and ignore what is not above
  it.
- **Committed first.** An answer or a change is published after its commit in the database, never before; so it can
  come late, but never wrongly.
- Times are RFC 3339 in UTC with microseconds. Quantities carry their unit in their name: `_s` seconds, `_bytes`
  bytes.
"""

COMMANDS: Final = """
A command is acknowledged at the broker when it is committed and answered; while the database is away, commands wait.

- `idempotency_key`: the same key with the same body is carried out once in seven days, and answered each time
  with `is_new` false. With another body it is refused. Without a key, the message's own id is the key: that
  covers what the broker delivers twice, not what you send twice.
- `reply_to`: letters, digits, `.`, `_` and `-`; of the topics that begin with `formicary.` only
  `formicary.replies.<name>`. Use one topic per service and tell answers apart by `correlation_id`.
- A job type that has no definition, or params that it refuses, are answered and dead-lettered at once. What fails for
  a reason that may pass is tried five times.
"""

REPLIES: Final = """
Sent to `reply_to`, under the command's key. A command without `reply_to` has no answer; if it is refused, its dead
letter says why.
"""

DEAD_LETTERS: Final = """
A refused command lies in `{topic}`: its body as it came, its headers, and the header `formicary-dead-reason` (on
Pulsar a property, on Redis in `h`). Nothing is dropped silently. To try again, publish the corrected body on
`formicary.commands`.
"""

LIFECYCLE: Final = """
Published by the leading queen from the history in the database, so that none is missed when a queen dies. **One
message holds the changes of one job that were read together, as JSON Lines**: split the body at line ends.
`TaskStateChanged` comes only for job types with `task_events: true` in their definition.

The states of a job are `PENDING`, `READY`, `EXECUTING`, `PAUSED`, `MANUAL_APPROVAL_REQUIRED`, and at its end
`COMPLETED`, `FAILED` or `CANCELLED`; a restart begins another attempt. Short states may be left out: what is
published is what was committed. `MANUAL_APPROVAL_REQUIRED` is kept for what waits for a person; nothing has it yet.
"""

INNER_HEAD: Final = """
## Between queens and ants

For whoever looks into a colony; other services must not rely on it, nor publish there. A body is a *pack*: the
MessagePack array `[schema version, sender, first number, sent at, [event, …]]`, an event the array `[name, field,
…]`. The id of an event is `<sender>-<first number + its place>`, so a repeated event is recognized. Fields are added
at the end; more than that raises the schema version.
"""

INNER_DEAD: Final = """
What cannot be read goes to `<topic>.dead`, one message per event, with the headers `formicary-dead-reason` and
`formicary-event-id`; of broadcasts it is logged only. The other events of its pack are handled.
"""
