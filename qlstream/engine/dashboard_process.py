"""The dashboard is a process of its own: building a page can never stall ingest or dispatch.

The application that `dashboard.app` names is a coroutine function `main(settings)`: it serves the pages of the store
that `settings` name until it is cancelled. `python -m qlstream.engine.dashboard_process` runs it; the settings come as
one line of JSON on standard input, and its end tells that the service is gone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress

from qlstream.logging import start_logging
from qlstream.pipeline.plan import resolve
from qlstream.settings import Settings

log = logging.getLogger("qlstream.engine")

FIRST_PAUSE_S = 0.5  # before a dashboard that died is started again; doubles each time
LONGEST_PAUSE_S = 30.0
HEALTHY_S = 60.0  # one that ran for so long is not on its way down
STOP_S = 5.0


class PortTaken(OSError):
    """Nobody can listen on the dashboard's port."""


def settle_port(settings: Settings, wait_s: float = 3.0) -> Settings:
    """Settings whose dashboard port is free now: a restart of the dashboard must find the same address again.

    Parameters
    ----------
    wait_s : the dashboard of a service that was killed needs a moment to notice and let go of the port [s]

    Raises
    ------
    PortTaken : another process listens there, or the host is not an address of this machine
    """
    host, port = settings.dashboard.host, settings.dashboard.port
    give_up = time.monotonic() + wait_s
    while True:
        try:
            dashboard = settings.dashboard.model_copy(update={"port": _free_port(host, port)})
            return settings.model_copy(update={"dashboard": dashboard})
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up:
                raise PortTaken(
                    f"the dashboard cannot listen on {host}:{port} ({error.strerror or error}); "
                    "give --port N, --port 0 for any free one, or --no-dashboard"
                ) from None
        time.sleep(0.1)


def url_of(settings: Settings) -> str:
    """Address of the pages."""
    host = settings.dashboard.host
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.dashboard.port}/"


async def supervise(settings: Settings) -> None:
    """Keep a dashboard process running until cancelled; one that dies is started again, ever later."""
    pause = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to the service alone, which then stops this one
        )
        try:
            assert process.stdin is not None
            with suppress(ConnectionError):
                process.stdin.write(settings.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
            code = await process.wait()
        except asyncio.CancelledError:
            await asyncio.shield(_stop(process))
            raise
        if time.monotonic() - began > HEALTHY_S:
            pause = FIRST_PAUSE_S
        log.error("dashboard ended with status %s; it is started again in %.1f s", code, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


async def is_up(settings: Settings) -> bool:
    """Whether somebody listens at the dashboard's address."""
    try:
        _, writer = await asyncio.open_connection(settings.dashboard.host, settings.dashboard.port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def serve(settings: Settings) -> None:
    """Serve the pages in this process until SIGTERM or SIGINT."""
    application = resolve(settings.dashboard.app)
    task = asyncio.ensure_future(application(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _serve_for_the_service(settings: Settings) -> None:
    def ended() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            os.kill(os.getpid(), signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_reader(0, ended)
    await serve(settings)


if __name__ == "__main__":
    with open(0, "rb", buffering=0, closefd=False) as service:  # unbuffered: what follows the line is for the loop
        given = Settings.model_validate_json(service.readline())
    start_logging(given.logging.level, given.logging.file)
    asyncio.run(_serve_for_the_service(given))
