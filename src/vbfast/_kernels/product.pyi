from typing import Any

# Capsules of six C functions each (struct Emission of tile.pxd), by name.
EMISSIONS: dict[str, Any]
