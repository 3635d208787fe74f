"""Runs the blocks of a page in order, all Python in one namespace: `python run_page.py STEPS.json`.

A step is {"number", "kind", "page", "line", "text"}, a file has a "path" too. Before the output of each stands a line
with its number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

_SHELL = "trap 'pwd > \"$POSTERAX_DOCS_CWD\"' EXIT\n"  # where a block ends, the next one begins


def main(file: str) -> None:
    """Run all steps; the first that goes wrong ends the run."""
    steps = json.loads(Path(file).read_text())
    where = Path(file).with_suffix(".cwd")
    page = sys.modules["__main__"] = ModuleType("__main__")
    for step in steps:
        print(f"\n\x1e{step['number']}", flush=True)
        text = "\n" * step["line"] + step["text"]
        if step["kind"] == "file":
            path = Path(step["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["text"])
        elif step["kind"] == "python":
            exec(compile(text, step["page"], "exec"), vars(page))
        else:
            command = ["bash", "-euo", "pipefail", "-c", _SHELL + step["text"]]
            environment = {**os.environ, "POSTERAX_DOCS_CWD": str(where)}
            status = subprocess.run(command, env=environment, stderr=subprocess.STDOUT).returncode
            if status:
                sys.exit(f"{step['page']}, line {step['line']}: exit status {status} of\n{step['text']}")
            os.chdir(where.read_text().strip())


if __name__ == "__main__":
    main(sys.argv[1])
