"""Whether the kernel killed something of this machine, or of this cgroup, for want of memory."""

from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def oom_counter_file() -> Path | None:
    """Returns the file that counts the kernel's kills: this cgroup's where it has one, else the machine's."""
    for file in (*_cgroup_files(), _VMSTAT):
        if count_oom_kills(file) is not None:
            return file
    return None


def count_oom_kills(file: Path | None) -> int | None:
    """Returns the kills counted so far; None where the file does not tell."""
    if file is None:
        return None
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None


def _cgroup_files() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
        elif "memory" in controllers.split(","):
            files.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
    return files
