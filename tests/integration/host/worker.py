"""What test_userns starts with `worker_command`: says what it was given and what it can import."""

from __future__ import annotations

import importlib.util
import json
import sys

import rootless.host.doctor


def main() -> int:
    """Print arguments, the place of two modules, and whether pytest can be found."""
    print(
        json.dumps(
            {
                "arguments": sys.argv[1:],
                "rootless": rootless.host.doctor.__file__,
                "json": json.__file__,
                "pytest": importlib.util.find_spec("pytest") is not None,
            }
        )
    )
    return 0
