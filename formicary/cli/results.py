"""Names for what a run left: links ``<home>/results/<job id>/<task type>/<artifact>`` to contents in a local store.

The store keeps contents under their digest; people want to open files by name.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from formicary.artifacts.base import ArtifactError
from formicary.artifacts.blobs import folder_of, shelf_of
from formicary.artifacts.keys import check_key
from formicary.model.jobs import ArtifactRef, TaskView

FOLDER = "results"


class Results:
    """Where the artifacts of one job of this process lie."""

    def __init__(self, home: Path, job_id: str, artifacts_url: str) -> None:
        self._links = home / FOLDER / job_id
        parts = urlsplit(artifacts_url)
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._root = Path(unquote(parts.path)) if parts.scheme == "file" else None

    def place_of(self, task: TaskView, artifact: ArtifactRef) -> str:
        """Returns the path of a link that is made here, or without a local store its folder's address."""
        try:
            check_key(artifact.name)
            folder = folder_of(artifact.sha256)
            if self._root is not None:
                return str(_link(self._links / task.task_type / artifact.name, self._root / folder))
        except (ArtifactError, OSError):
            return f"{artifact.name} in the store"
        return f"{self._url}/{folder}"


def _link(link: Path, folder: Path) -> Path:
    copies = shelf_of(folder.name, sorted(path.name for path in folder.iterdir())).copies
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder / copies[0], link.parent))
    return link
