"""Runs the functions of a module that are named test_…, each with a new folder, and prints what came of each as JSON: null, or how it failed.

python run_checks.py MODULE
"""

import importlib
import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Dict, Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(ROOT / "python"), str(ROOT / "python/examples")]


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    found: Dict[str, Optional[str]] = {}
    for name, check in list(vars(module).items()):
        if name.startswith("test_"):
            with tempfile.TemporaryDirectory(prefix="gradmix-python-") as folder:
                try:
                    check(Path(folder))
                    found[name] = None
                except BaseException:
                    found[name] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
