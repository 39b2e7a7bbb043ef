"""The one place that knows which executor serves which method."""

from collections.abc import Callable, Sequence

from executors.base import Executor
from executors.docker.address import has_engine
from executors.errors import UnknownMethodError
from executors.kubernetes.options import has_cluster
from executors.missing import MissingExecutor
from executors.options import ExecutorOptions
from executors.specs import HTTP_METHODS

__all__ = ["DEFAULT_METHODS", "KNOWN_METHODS", "ExecutorOptions", "make_executors"]


def _make_dummy(options: ExecutorOptions) -> Executor:
    from executors.dummy import DummyExecutor

    return DummyExecutor(options)


def _make_shell(options: ExecutorOptions) -> Executor:
    from executors.shell import ShellExecutor

    return ShellExecutor(options)


def _make_http(options: ExecutorOptions) -> Executor:
    from executors.http import HttpExecutor

    return HttpExecutor(options)


def _make_python(options: ExecutorOptions) -> Executor:
    from executors.python import PythonExecutor

    return PythonExecutor(options)


def _make_messaging(options: ExecutorOptions) -> Executor:
    from executors.messaging import MessagingExecutor

    return MessagingExecutor(options)


def _make_websocket(options: ExecutorOptions) -> Executor:
    from executors.websocket import WebsocketExecutor

    return WebsocketExecutor(options)


def _make_docker(options: ExecutorOptions) -> Executor:
    try:
        from executors.docker.executor import DockerExecutor
    except ModuleNotFoundError as exc:
        return MissingExecutor(("DOCKER",), str(exc.name), "docker")
    return DockerExecutor(options)


def _make_kubernetes(options: ExecutorOptions) -> Executor:
    from executors.kubernetes.executor import KubernetesExecutor

    return KubernetesExecutor(options)


_Factory = Callable[[ExecutorOptions], Executor]
_FACTORIES: dict[str, _Factory] = {
    "SHELL": _make_shell,
    **dict.fromkeys(HTTP_METHODS, _make_http),
    "PYTHON": _make_python,
    "WEBSOCKET": _make_websocket,
    "MESSAGING": _make_messaging,
    "DOCKER": _make_docker,
    "KUBERNETES": _make_kubernetes,
    "DUMMY": _make_dummy,
}

#: Every method that an executor of this package serves.
KNOWN_METHODS = tuple(_FACTORIES)
_ON_REQUEST = {"DUMMY", "WEBSOCKET", "MESSAGING", "DOCKER", "KUBERNETES"}
#: What an ant offers when it is not told: all that does real work and needs no setting.
DEFAULT_METHODS = tuple(method for method in KNOWN_METHODS if method not in _ON_REQUEST)


def default_methods(options: ExecutorOptions) -> tuple[str, ...]:
    """Returns what an ant offers when it is not told which methods: ``DEFAULT_METHODS``, and what is set up."""
    workers = ("WEBSOCKET",) if options.workers_listen is not None else ()
    services = ("MESSAGING",) if options.exchange is not None else ()
    engine = ("DOCKER",) if has_engine(options.docker_host) else ()
    cluster = ("KUBERNETES",) if has_cluster(options.kubernetes) else ()
    return (*DEFAULT_METHODS, *workers, *services, *engine, *cluster)


def make_executors(methods: Sequence[str] | None, options: ExecutorOptions | None = None) -> dict[str, Executor]:
    """Returns an executor for each method; methods of one family share theirs.

    Only the modules that are needed are imported. ``None`` means ``default_methods``.

    Raises:
        UnknownMethodError: names the methods that exist.
    """
    options = options or ExecutorOptions()
    made: dict[_Factory, Executor] = {}
    executors: dict[str, Executor] = {}
    for method in default_methods(options) if methods is None else methods:
        factory = _FACTORIES.get(method)
        if factory is None:
            raise UnknownMethodError(method, KNOWN_METHODS)
        if factory not in made:
            made[factory] = factory(options)
        executors[method] = made[factory]
    return executors
