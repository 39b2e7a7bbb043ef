"""Volumes of a pod, from those of its containers. Pure."""

from typing import Any

import msgspec

from executors.kubernetes.quantities import memory_text
from executors.specs import ProjectedSpec, VolumeSpec

Json = Any  # a JSON value

#: Where scripts, results and the default working directory are.
HOME_PATH = "/formicary"
HOME_VOLUME = "formicary-home"


class Volumes:
    """Collects the volumes of a pod; containers that name the same source share one."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._volumes: list[Json] = [{"name": HOME_VOLUME, "emptyDir": {}}]

    def mounts(self, specs: tuple[VolumeSpec, ...]) -> list[Json]:
        """Returns the mounts of one container."""
        return [self._mount(spec) for spec in specs]

    def manifest(self) -> list[Json]:
        """Returns the volumes that the mounts so far need."""
        return self._volumes

    def _mount(self, spec: VolumeSpec) -> Json:
        mount: dict[str, Json] = {"name": self._name(spec), "mountPath": spec.mount_path}
        if spec.read_only:
            mount["readOnly"] = True
        if spec.sub_path:
            mount["subPath"] = spec.sub_path
        return mount

    def _name(self, spec: VolumeSpec) -> str:
        source = _source(spec)
        key = msgspec.json.encode(source, order="sorted")
        if spec.empty_dir is not None:
            key += spec.mount_path.encode()
        if key not in self._names:
            self._names[key] = f"volume-{len(self._names)}"
            self._volumes.append({"name": self._names[key], **source})
        return self._names[key]


def _source(spec: VolumeSpec) -> dict[str, Json]:
    if spec.host_path:
        return {"hostPath": {"path": spec.host_path}}
    if spec.pvc:
        return {"persistentVolumeClaim": {"claimName": spec.pvc}}
    if spec.config_map:
        return {"configMap": {"name": spec.config_map, **_items(spec.items)}}
    if spec.secret:
        return {"secret": {"secretName": spec.secret, **_items(spec.items)}}
    if spec.projected:
        return {"projected": {"sources": [_projected(each) for each in spec.projected]}}
    empty: dict[str, Json] = {}
    if spec.empty_dir is not None and spec.empty_dir.medium:
        empty["medium"] = spec.empty_dir.medium
    if spec.empty_dir is not None and spec.empty_dir.size_limit:
        empty["sizeLimit"] = memory_text(spec.empty_dir.size_limit)
    return {"emptyDir": empty}


def _projected(spec: ProjectedSpec) -> Json:
    if spec.config_map:
        return {"configMap": {"name": spec.config_map, **_items(spec.items)}}
    if spec.secret:
        return {"secret": {"name": spec.secret, **_items(spec.items)}}
    token = spec.service_account_token
    if token is None:
        return {}
    source: dict[str, Json] = {"path": token.path, "expirationSeconds": int(token.expires_after_s)}
    if token.audience:
        source["audience"] = token.audience
    return {"serviceAccountToken": source}


def _items(items: dict[str, str]) -> dict[str, Json]:
    return {"items": [{"key": key, "path": path} for key, path in items.items()]} if items else {}
