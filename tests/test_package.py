"""What importing the package may and may not do."""

import subprocess
import sys


def test_importing_langsteer_imports_neither_torch_nor_a_simulator():
    code = (
        "import sys, langsteer, langsteer.calvin, langsteer.data;"
        "heavy = {'torch', 'pybullet', 'gymnasium', 'numba'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
