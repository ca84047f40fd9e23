"""The reading of many recordings spread over the processes of a Dask cluster.

A task is one recording, and a worker of the local cluster has one thread: no process holds more
than one host's events. Only `Slice`s come back, a few at a time. Whoever may talk to a Dask
scheduler may run code on its workers, so the local cluster listens on loopback alone, without a
dashboard, and asks for a certificate that is made anew for each run.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from porttrace.analysis.fleet.model import Skipped, Slice
from porttrace.tracer.errors import PorttraceError

try:
    import cryptography  # noqa: F401  # distributed imports it when it makes the certificate
    import distributed
    from distributed.security import Security

    from porttrace.analysis.fleet.reading import recordings_at as recordings_at
    from porttrace.analysis.fleet.reading import summed
except ImportError as error:
    raise PorttraceError(
        f"fleet needs Dask and cryptography ({error})", "pip install 'porttrace[fleet]'"
    ) from None

_AHEAD = 2  # recordings that are handed out for each thread: one is read, one waits
_ANSWER_S = 10.0
_WORKERS_S = 30.0
_DEATHS = 3  # so many workers may die over one recording before it is given up


def spread(
    paths: Sequence[str],
    scheduler: str = "",
    workers: int = 0,
    began: Callable[[Any], None] | None = None,
) -> Iterator[Slice | Skipped]:
    """Yield the sum of each recording, as they are done.

    `scheduler` is the address of one that runs; without it `workers` processes are started here
    (0: one for each CPU that this process may use) and ended again. `began` is called with the
    `distributed.Client`. A recording that kills its workers is skipped after the fourth. Raises
    PorttraceError when there is no cluster, or it goes away.
    """
    with _client(scheduler, min(workers or len(os.sched_getaffinity(0)), len(paths))) as client:
        _check(client, scheduler)
        if began:
            began(client)
        yield from _results(client, paths)


def _results(client: Any, paths: Sequence[str]) -> Iterator[Slice | Skipped]:
    threads = sum(client.nthreads().values())
    waiting = iter(paths)
    asked: dict[str, str] = {}  # path by the key of its task
    done = distributed.as_completed()
    for path in _first(waiting, _AHEAD * threads):
        done.add(_submitted(client, path, asked))
    for future in done:
        yield _result(future, asked.pop(future.key))
        for path in _first(waiting, 1):
            done.add(_submitted(client, path, asked))


def _first(paths: Iterator[str], count: int) -> list[str]:
    return [path for _, path in zip(range(count), paths, strict=False)]


def _submitted(client: Any, path: str, asked: dict[str, str]) -> Any:
    # Not pure: a file may have changed since somebody asked the same scheduler for it.
    future = client.submit(summed, path, pure=False)
    asked[future.key] = path
    return future


def _result(future: Any, path: str) -> Slice | Skipped:
    try:
        result: Slice | Skipped = future.result()
        return result
    except distributed.KilledWorker:
        return Skipped(
            path,
            f"each of {_DEATHS + 1} workers that read {path} died over it",
            "they had too little memory, or something kills them",
        )
    except Exception as error:
        if future.status in ("cancelled", "lost"):
            raise PorttraceError(
                "the Dask scheduler went away", "see its log, start it again and repeat"
            ) from None
        return Skipped(path, f"{type(error).__name__} on a worker: {error}"[:500])


@contextlib.contextmanager
def _client(scheduler: str, workers: int) -> Iterator[Any]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler:
        with _connected(scheduler) as client:
            yield client
        return
    with (
        tempfile.TemporaryDirectory(prefix="porttrace-fleet-") as folder,
        _settings(folder),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            protocol="tls",
            security=Security.temporary(),
            # a server of HTTP there always is: on a free port, and with nothing to say
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _settings(folder: str) -> Any:
    import dask

    return dask.config.set({
        "temporary-directory": folder,
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # what a worker holds is one recording: there is nothing that it could move to disk
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    })  # fmt: skip


def _connected(address: str) -> Any:
    try:
        return distributed.Client(address, timeout=_ANSWER_S)
    except (OSError, ValueError, TypeError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise PorttraceError(
            f"no Dask scheduler answers at {address}: {why}",
            "start one with 'dask scheduler', and give its address as tcp://HOST:8786",
        ) from None


def _check(client: Any, scheduler: str) -> None:
    # Before a thousand recordings fail for one reason.
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        raise PorttraceError(
            f"the Dask scheduler{f' at {scheduler}' if scheduler else ''} has no workers",
            "start some: dask worker ADDRESS --nthreads 1",
        ) from None
    mine = version("porttrace")
    try:
        theirs = client.run(version, "porttrace")
    except Exception as error:
        raise PorttraceError(
            f"a Dask worker cannot run porttrace: {error}",
            f"install porttrace {mine} where the workers run",
        ) from None
    other = {address: found for address, found in theirs.items() if found != mine}
    if other:
        address, found = min(other.items())
        raise PorttraceError(
            f"the Dask worker {address} has porttrace {found}, and this is {mine}",
            "install the same on all machines",
        )
