"""What an ant may set about its executors."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executors.exchange import Exchange
from executors.kubernetes.options import KubernetesOptions
from executors.specs import Limits


def _default_path() -> str:
    return os.environ.get("PATH") or os.defpath


def _default_logins() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """Settings of all executors; the defaults suit a laptop.

    Attributes:
        python_paths: Folders put in front of ``sys.path`` for PYTHON functions.
        python_threads: Most synchronous PYTHON functions that run at the same time.
        python_processes: Most worker processes for ``in_process_pool`` functions.
        http_body_limit_bytes: How much of a response body is read.
        http_text_limit_bytes: How much of a text body becomes the output ``body``.
        http_max_redirects: Redirects that are followed.
        http_ca_file: PEM file of trusted authorities, beside those of the system.
        shell: The shell that runs scripts; it must understand ``-e``.
        shell_path: ``PATH`` of scripts.
        shell_after_script_limit_s: Time an ``after_script`` may take.
        shell_leftover_grace_s: Time between TERM and KILL for children that outlive their script.
        shell_environment: More variables that every script sees.
        shell_user: ``user`` or ``user:group`` that scripts run as; the ant must be root.
        shell_limits: What a script may use at most, and does where its task asks for nothing.
        shell_umask: Mode bits that files of scripts lack; -1 leaves the ant's own.
        shell_folder: Where attempts have their folders, which ``shell_user`` must be able to reach.
        exchange: The message broker, for MESSAGING; None: there is no MESSAGING.
        reply_topic: Where replies come that no task wants elsewhere.
        workers_listen: Host and port where remote workers connect; None: nowhere, and there is no WEBSOCKET.
        workers_token: What remote workers must know; None: nothing.
        workers_origins: Origins of the web pages that may be remote workers.
        workers_heartbeat_s: Pause between pings; a worker that gives no sign of life for two of them is lost.
        workers_patience_s: How long a task waits in the ant when the last worker for it has just gone.
        docker_host: The engine's address; None means ``DOCKER_HOST``, or the first socket of an engine that is there.
        docker_privileged: Whether DOCKER tasks may ask for all rights, devices and the machine's own network.
        docker_host_paths: Folders of the machine below which DOCKER tasks may mount paths.
        docker_volumes: Names of the engine's volumes that DOCKER tasks may mount; ``*`` stands for any characters.
        docker_networks: Names of the engine's networks that DOCKER tasks may join.
        docker_logins: The file that ``docker login`` writes.
        docker_patience_s: How long an engine that went away may take to come back while containers run.
        docker_silence_s: How long an engine may give no sign of life while it is waited for.
        docker_progress_s: How often the log says how far the pull of an image is.
        kubernetes: Settings of KUBERNETES.
    """

    python_paths: tuple[Path, ...] = ()
    python_threads: int = 32
    python_processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    http_body_limit_bytes: int = 1024 * 1024
    http_text_limit_bytes: int = 64 * 1024
    http_max_redirects: int = 10
    http_ca_file: Path | None = None
    shell: Path = Path("/bin/sh")
    shell_path: str = field(default_factory=_default_path)
    shell_after_script_limit_s: float = 60.0
    shell_leftover_grace_s: float = 1.0
    shell_environment: Mapping[str, str] = field(default_factory=dict)
    shell_user: str | None = None
    shell_limits: Limits = field(default_factory=Limits)
    shell_umask: int = -1
    shell_folder: Path | None = None
    exchange: Exchange | None = None
    reply_topic: str = "formicary.replies"
    workers_listen: tuple[str, int] | None = None
    workers_token: str | None = None
    workers_origins: tuple[str, ...] = ()
    workers_heartbeat_s: float = 15.0
    workers_patience_s: float = 30.0
    docker_host: str | None = None
    docker_privileged: bool = False
    docker_host_paths: tuple[Path, ...] = ()
    docker_volumes: tuple[str, ...] = ()
    docker_networks: tuple[str, ...] = ()
    docker_logins: Path = field(default_factory=_default_logins)
    docker_patience_s: float = 30.0
    docker_silence_s: float = 30.0
    docker_progress_s: float = 5.0
    kubernetes: KubernetesOptions = field(default_factory=KubernetesOptions)
