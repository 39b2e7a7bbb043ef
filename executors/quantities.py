"""Sizes and shares of processors as people write them: ``32Mi``, ``1.5Gi``, ``500m``."""

import re

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(|k|M|G|T|Ki|Mi|Gi|Ti|B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB|K)")
_SIZE_FACTOR = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY_FACTOR = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_CPU = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)(m?)")

#: What a size and a share of processors look like, for schemas and editors.
SIZE_PATTERN = rf"^{_SIZE.pattern}$"
CPU_PATTERN = rf"^{_CPU.pattern}$"


def parse_size(text: str) -> int:
    """Returns the bytes of ``512k``, ``32Mi``, ``1.5Gi``, ``1GB`` or a plain number.

    ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` powers of 1024; a trailing ``B`` changes nothing.

    Raises:
        ValueError: it is none; the text says what would be right.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text[:40]}" is no size; write it like 512k, 32Mi, 1.5Gi or 1GB')
    unit = match[2].removesuffix("B")
    factor = _BINARY_FACTOR[unit[0]] if unit.endswith("i") else _SIZE_FACTOR["k" if unit == "K" else unit]
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def parse_cpu(text: str) -> float:
    """Returns the processors of ``2``, ``0.5`` or ``500m`` (thousandths).

    Raises:
        ValueError: it is none, or nothing at all; the text says what would be right.
    """
    match = _CPU.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text[:40]}" is no number of processors; write it like 2, 0.5 or 500m')
    count = float(match[1]) / (1000 if match[2] else 1)
    if count <= 0:
        raise ValueError(f'"{text[:40]}" leaves no processor; write it like 2, 0.5 or 500m')
    return count
