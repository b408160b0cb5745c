"""The most memory of the machine that this process held, since it was last asked to forget: a worker runs many stages, large and small.

Linux keeps the number and lets a process reset it. Elsewhere, and where that is forbidden, what is told is the process's maximum ever, and
a small stage after a large one inherits it.
"""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

CLEAR: Final = Path("/proc/self/clear_refs")
STATUS: Final = Path("/proc/self/status")
RESET_PEAK: Final = "5"
"""What ``clear_refs`` takes to set the peak to what is held now (``man 5 proc``)."""


def forget_peak() -> None:
    """From now on only what is held from now on counts, where the system allows it."""
    with suppress(OSError):
        CLEAR.write_text(RESET_PEAK, encoding="ascii")


def peak_bytes() -> int:
    """The most that was held."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    # In bytes on macOS, in KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
