"""Load a DLL, then run a script: ``python_with_udp.py DLL SCRIPT ARGUMENT...``.

See wineudp.c; on Windows itself nobody needs this.
"""

import ctypes
import runpy
import sys

ctypes.CDLL(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
