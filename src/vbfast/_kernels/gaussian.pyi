from typing import Any

# Capsules of four C functions each (struct Emission of tile.pxd).
full: Any
tied: Any
diag: Any
