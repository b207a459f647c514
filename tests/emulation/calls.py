"""What every chapter on emulated kernels calls them with."""

from __future__ import annotations

# The core's numbers for the orders of threads, and its order of scalar types.
ORDERS = {"forward": 0, "reverse": 1, "random": 2}
SCALARS = ("uint8", "uint16", "int16", "float16", "float32", "float64")


def address(array):
    """Of the array's memory; 0 for None."""
    return 0 if array is None else array.ctypes.data
