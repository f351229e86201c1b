"""Autobahn's cases (by way of kosoku) against the echo server on Wellhead's socket layer.

python3 conformance.py ECHO_BINARY

Everything but performance (9.*) and compression (12.*, 13.*), which is not spoken: 247 cases, all of which must pass.
"""

import asyncio
import subprocess
import sys

from kosoku import FailureError, run_fuzzingclient

CASES = 247
NOT_OURS = ["9.*", "12.*", "13.*"]


async def run(address: str) -> list:
    """The results of all cases, whether they passed or not."""
    try:
        return await run_fuzzingclient(address, None, NOT_OURS, concurrency=8)
    except FailureError as failure:
        return failure.results


def main() -> int:
    echo = subprocess.Popen(sys.argv[1], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        address = echo.stdout.readline().strip()
        results = asyncio.run(asyncio.wait_for(run(address), 600))
        alive = echo.poll() is None
    finally:
        echo.kill()
        echo.wait()
    failed = [result for result in results if not result.passed]
    for result in failed:
        print(f"{result.case_id}: {result.behavior.value}, close {result.behavior_close.value}")
        print(f"  {result.description}\n  wanted: {result.expectation}\n  {result.result} {result.result_close}")
    if not alive:
        print("the echo server died")
    if len(results) != CASES:
        print(f"{len(results)} cases were run, {CASES} were expected")
    print(f"autobahn: {len(results) - len(failed)} passed, {len(failed)} failed")
    return 0 if alive and not failed and len(results) == CASES else 1


if __name__ == "__main__":
    sys.exit(main())
