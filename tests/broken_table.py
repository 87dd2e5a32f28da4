"""Play every broken cluster at every step, and write docs/broken-clusters.md from what was seen."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

from runbooks_sandbox import lifecycle
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State
from tests import broken_cases as cases
from tests.broken_cases import CASES, PARTS, Broken, Seen
from tests.conftest import started

PAGE = Path(__file__).parents[1] / "docs" / "broken-clusters.md"

HEAD = """# Broken clusters

Written by `python -m tests.broken_table`, which `make soak` runs, from what a real kube-apiserver and a run against it
did. Each case is brought about just before a step is applied (an object that is to be created and is being deleted:
before the run), and stays until the run has ended. Then it is removed, and a second run is made.

**finishes**: the run is done and proven although the case is there, and `verify` right after it finds everything as
wanted. **stops**: exit code 1, with the reason that is shown. In each of the {count} experiments the second run ended
with exit code 0, and `verify` after it with "as desired"; {wrong}.
Waits were given {timeout} s here, 60 s where the API server was killed; "s" is how long the first run took.

Nothing here watches: the runbooks read lists and objects again and again, so no watch of theirs can be closed or
expire. What expires (410) is the place in a list of several pages, and then the list is read anew, all at once.

| case | step | result | s |
|---|---|---|---|
"""

FOOT = """
Not in the table, since there is nothing to break in them there:

- `root` and `wildcard` of 6.4.2 write files, and ask no cluster.
- `allow-scraping` of 6.4.4: the operator's own policy is there, and the step leaves it alone.
- `restart-pods` of 6.4.4 evicts Pods, which the steps `exclude-port` and `set-backend` bring with them here.
- A case that a step cannot meet: a quota where nothing is created, a conversion where there is no CRD, a namespace
  that cannot be deleted, a status that the step does not wait for.

## What a run does about it

- 429 and 503 are asked again after what `Retry-After` says, at least 0.25, 0.5, 1 … 8 s, for at most `timeout_s` and
  120 s a request, and never beyond the deadline of the wait that it belongs to. Where the server asks for more than
  is left, the run stops at once. From a second on a line says so; Ctrl-C ends the pause, and nothing is sent after it.
- A connection that fails is tried again for as long, if the server has answered before; one that never has is away,
  and that is said at once. A write whose answer was lost is sent again: it is either the same apply, or a patch that
  tests what it changes, so it is made once, and the record says that it was made.
- An API server that has just started refuses everything with 403 for a moment, since it has not read its roles yet.
  It is asked whether it is ready before a 403 is taken for a missing right.
- Before a run that has written something says that it is done, it reads what it has written once more, a second after
  the last write at the earliest. What an operator or admission has taken out again, what is gone, is being deleted, or
  lies in a namespace that is, is named. What is undone after the run has ended, only the next `verify` can tell.
- A status counts only where its `observedGeneration` is the object's generation.
"""


def words(seen: Seen) -> str:
    """The result of an experiment, for the table."""
    if seen.finished:
        return "**finishes**" if not seen.wrong else "**WRONG**: done, and is not"
    reason = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", seen.outcome["reason"])
    reason = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "…", reason).replace("|", "\\|").replace("\n", " ")
    again = " **and so does the second run**" if seen.second["exit_code"] else ""
    return f"stops: {reason if len(reason) <= 330 else reason[:329] + '…'}{again}"


def main() -> None:
    """Write the page.

    Raises:
        SystemExit: something was wrong; the page says what.
    """
    found: list[Seen] = []
    with tempfile.TemporaryDirectory() as home:
        for ingress in PARTS:
            state = State(f"broken-{ingress}", Path(home) / "serverless-mesh-runbooks" / "sandbox")
            broken = Broken(started(state, Played(ingress=ingress)), ingress)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    broken.complete()
                for case, part in cases.experiments(ingress):
                    with contextlib.redirect_stdout(io.StringIO()):
                        found.append(cases.experiment(broken, case, part))
                    sys.stdout.write(f"{case.name} | {part} | {words(found[-1])}\n")
                    sys.stdout.flush()
            finally:
                lifecycle.stop(state)
    kinds = {case.name: case for case in CASES}
    order = list(kinds)
    wrong = [(seen, said) for seen in found if (said := seen.amiss(kinds[seen.case]))]
    for seen, said in wrong:
        sys.stdout.write(f"AMISS {seen.case} | {seen.part}: {'; '.join(said)}\n")
    none = "in none did a run say that it was done and was not"
    told = (
        f"but {len(wrong)} of them came out as it must not: " + "; ".join(one.case for one, _ in wrong)
        if wrong
        else none
    )
    page = HEAD.format(count=len(found), wrong=told, timeout=cases.TIMEOUT_S)
    for seen in sorted(found, key=lambda one: order.index(one.case)):
        page += f"| {seen.case} | {seen.part} | {words(seen)} | {seen.seconds} |\n"
    PAGE.write_text(page + FOOT)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
