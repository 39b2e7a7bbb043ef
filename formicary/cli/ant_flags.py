"""What flags say about an ant."""

from formicary.ant_options import AntOptions
from formicary.cli.options import words_of


def ant_options(
    *,
    ant_id: str | None = None,
    slots: int | None = None,
    tags: str | None = None,
    methods: str | None = None,
    python_path: str | None = None,
) -> AntOptions:
    """Returns what the flags say about an ant."""
    return AntOptions(
        id=ant_id,
        slots=slots,
        tags=words_of(tags),
        methods=words_of(methods) or None,
        python_paths=tuple(path for path in (python_path or "").split(":") if path),
    )
