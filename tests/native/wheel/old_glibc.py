"""Makes stand-ins of libpthread, libdl and librt as they were before glibc 2.34.

There libc took in their functions, under new versions. ``python old_glibc.py DIRECTORY`` links
libpthread.so, libdl.so and librt.so there. With ``-LDIRECTORY`` in LDFLAGS, CUDA's static runtime
uses the versions that older systems have.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LIBRARIES = {
    "libpthread.so.0": ("pthread_", "sem_"),
    "libdl.so.2": ("dl",),
    "librt.so.1": ("shm_",),
}
MOVED = "GLIBC_2.34"


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def older_versions() -> dict[str, str]:
    """The functions that moved, and the version that each had before."""
    libc = output("cc", "-print-file-name=libc.so.6").strip()
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(
        r" (\w+)@@?(GLIBC_[\d.]+)$", output("readelf", "-W", "--dyn-syms", libc), re.M
    ):
        versions.setdefault(name, set()).add(version)

    def number(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.partition("_")[2].split("."))

    return {
        name: max(known - {MOVED}, key=number)
        for name, known in versions.items()
        if MOVED in known and len(known) > 1
    }


def make(directory: Path) -> None:
    """Links the stand-ins."""
    directory.mkdir(parents=True, exist_ok=True)
    moved = older_versions()
    for library, prefixes in LIBRARIES.items():
        names = [name for name in moved if name.startswith(prefixes)]
        nodes: dict[str, list[str]] = {}
        for name in names:
            nodes.setdefault(moved[name], []).append(name)
        short = directory / library.rpartition(".")[0]
        source, script = short.with_suffix(".c"), short.with_suffix(".map")
        source.write_text("".join(f"void {name}(void) {{}}\n" for name in names))
        script.write_text(
            "".join(f"{version} {{ {'; '.join(held)}; }};\n" for version, held in nodes.items())
        )
        options = ["-shared", "-fPIC", "-fno-builtin", "-nostdlib", f"-Wl,-soname,{library}"]
        output("cc", *options, f"-Wl,--version-script={script}", str(source), "-o", str(short))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
