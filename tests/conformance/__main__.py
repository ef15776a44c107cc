"""`python -m tests.conformance`: any runtimes side by side, one line per case.

    python -m tests.conformance [--runtime PATH]... [-k WORD] [--failures] [--json]

Default: crun and runc of this host, where installed, and this project's rootless-oci. Run it as an ordinary user.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.conformance import cases as _cases  # noqa: F401 - registers them
from tests.conformance.harness import BUSYBOX, CASES, compiler, make_root, runtime
from tests.conformance.judge import FAIL, KNOWN, PASS, SKIP, Verdict, judge_all
from tests.conftest import make_private_directory, remove_private_directory

DEFAULT = ("crun", "runc", "rootless-oci")


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--runtime", action="append", help="path or name; rootless-oci is this checkout's")
    parser.add_argument("-k", metavar="WORD", default="", help="only cases with WORD in their id")
    parser.add_argument("--failures", action="store_true", help="only lines in which not all pass")
    parser.add_argument("--json", action="store_true", help="the verdicts as JSON")
    options = parser.parse_args()
    if not BUSYBOX.exists() or not compiler():
        sys.exit("conformance: a static busybox and gcc are needed (apt-get install busybox-static gcc libc6-dev)")
    found = [r for r in map(runtime, options.runtime or DEFAULT) if r is not None]
    if len(found) < len(options.runtime or ()):
        sys.exit("conformance: no such runtime")
    versions = [r.version() for r in found]
    chosen = [c for name, c in sorted(CASES.items()) if options.k in name]
    place = make_private_directory("f")
    table: dict[str, list[Verdict]] = {}
    try:
        template = make_root(place)
        if not options.json:
            print(
                "  ".join(
                    [f"{'case':58}", *(f"{r.name} {v}"[:18].ljust(18) for r, v in zip(found, versions, strict=True))]
                )
            )
        begun = [judge_all(r, v, chosen, place, template) for r, v in zip(found, versions, strict=True)]
        for case in chosen:
            row = [verdicts[case.id].result() for _, verdicts in begun]
            table[case.id] = row
            if not options.json and not (options.failures and all(v.word in (PASS, SKIP) for v in row)):
                print(
                    "  ".join([f"{case.demand:6} {case.id:51}", *(v.word.ljust(18) for v in row)]).rstrip(), flush=True
                )
                for r, verdict in zip(found, row, strict=True):
                    if verdict.word in (FAIL, KNOWN):
                        print(f"         {r.name}: {verdict.reason}")
    finally:
        for r in found:
            r.close()
        remove_private_directory(place)
    if options.json:
        names = [f"{r.name} {v}" for r, v in zip(found, versions, strict=True)]
        print(
            json.dumps({c: {n: list(v) for n, v in zip(names, row, strict=True)} for c, row in table.items()}, indent=1)
        )
    else:
        for word in (PASS, KNOWN, FAIL, SKIP):
            print(
                "  ".join(
                    [
                        f"{word:58}",
                        *(str(sum(row[i].word == word for row in table.values())).ljust(18) for i in range(len(found))),
                    ]
                )
            )
    return int(any(v.word == FAIL for row in table.values() for v in row))


if __name__ == "__main__":
    sys.exit(main())
