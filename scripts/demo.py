"""Tell the policy that comes with LangSteer what to do, and watch it try.

python scripts/demo.py 'push the blue block to the right'
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import demo

if __name__ == "__main__":
    demo()
