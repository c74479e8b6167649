"""``kindsight serve`` and ``kindsight studio``: classifiers in a browser, and over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet, Workers
from kindsight.cli.terminal.text import Paint, complain, note, print_json, printable, say
from kindsight.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from kindsight.server.models import Models
    from kindsight.server.settings import ServerSettings

__all__ = ["addresses", "host_names", "serve", "studio"]

FAILED = 1
"""The exit code if requests were not finished."""

MEGA = 10**6

SERVER_NEEDS = ("fastapi", "httptools", "multipart", "prometheus_client", "uvicorn")
STUDIO_NEEDS = ("fastapi", "uvicorn", "multipart", "tensorflow", "keras")


def serve(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders or model bundles. A model's name is that of its folder; the first "
            "is the default.",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Address to listen on. Any address other than this machine's loopback address "
            "needs --token-file.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 for any free port.")
    ] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that clients must send (Authorization: Bearer TOKEN).  "
            "[default: none]",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Further host name by which clients reach the server, for example behind a proxy; "
            "may be repeated.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for corrected images, as data for 'kindsight train'.  [default: no image "
            "is stored]",
            show_default=False,
        ),
    ] = None,
    keep_size: Annotated[
        float,
        typer.Option(
            metavar="MB", min=1, help="Maximum size of the corrected images, in megabytes."
        ),
    ] = 2000,
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of waiting images.")
    ] = 256,
    max_images: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of images in a request.")
    ] = 64,
    max_size: Annotated[
        float,
        typer.Option(metavar="MB", min=0.001, help="Maximum size of a request, in megabytes."),
    ] = 32,
    max_memory: Annotated[
        float,
        typer.Option(
            metavar="MB", min=0.001, help="Maximum size of all uploads at once, in megabytes."
        ),
    ] = 512,
    max_pixels: Annotated[
        float,
        typer.Option(metavar="MP", min=0.001, help="Maximum size of an image, in megapixels."),
    ] = 100,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Maximum time of an upload, and of its predictions, in seconds."
        ),
    ] = 60,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Maximum time for finishing requests when the server is stopped, in seconds.",
        ),
    ] = 30,
    watch: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Interval in seconds at which the folders are checked for new bundles, which "
            "replace the served ones; 0 for never.",
        ),
    ] = 2,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object as output when the server is ready.")
    ] = False,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve predictions over HTTP, and a page that classifies images in a browser.

    Images are posted to /v1/predict; /openapi.json describes all routes. When a run is trained
    again, or a link is switched, the new bundle is loaded, checked and served. Ctrl-C or SIGTERM
    stops the server after it has finished the requests under way.

    Example: kindsight serve runs/photos-1 --port 8000
    """
    if any(map(_is_missing, SERVER_NEEDS)):
        raise MissingExtraError("The server", "serve")
    from kindsight.server.settings import ServerSettings, is_loopback, read_token

    local = is_loopback(host)
    if token_file is None and not local:
        raise SettingsError(
            "`host` must be a loopback address, such as 127.0.0.1, unless `token_file` is given; "
            f"got {host}. Write a token into a file: {_MAKE_TOKEN}"
        )
    settings = ServerSettings(
        token=None if token_file is None else read_token(token_file),
        hosts=host_names(host, allow_host or [], local),
        keep=None if keep is None else Path(keep),
        keep_bytes=round(keep_size * MEGA),
        workers=workers,
        queue=queue,
        files=max_images,
        body_bytes=round(max_size * MEGA),
        memory_bytes=round(max_memory * MEGA),
        pixels=round(max_pixels * MEGA),
        seconds=timeout,
        grace=grace,
        watch=watch,
    )
    _log_to_stderr()
    if not _serve(runs, settings, host, port, allow_host or [], json, quiet):
        complain("stopped before every request was finished. A longer --grace gives more time.")
        raise typer.Exit(FAILED)


_MAKE_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe())" > token.txt'


def _serve(
    runs: list[str],
    settings: ServerSettings,
    host: str,
    port: int,
    allow_host: list[str],
    json: bool,
    quiet: bool,
) -> bool:
    """Serve until a signal arrives; return whether every request was finished."""
    from kindsight.server.app import create_app
    from kindsight.server.run import bind, run_server

    sock = bind(host, port)
    try:
        app = create_app(runs, settings)
        address, *others = addresses(host, sock.getsockname()[1], allow_host)
        models: Models = app.state.serving.models

        def announce() -> None:
            if json:
                print_json(_ready(address, models))
            elif not quiet:
                say(*_message(address, others, models, settings))

        return run_server(app, sock, announce)
    finally:
        sock.close()


def _is_missing(module: str) -> bool:
    return importlib.util.find_spec(module) is None


def host_names(host: str, more: list[str], local: bool) -> tuple[str, ...] | None:
    """Return the accepted host names; None for any, if a token is required."""
    from kindsight.server.settings import LOOPBACK_NAMES

    if not local and not more:
        return None
    names = [*LOOPBACK_NAMES, host.strip("[]"), *more] if local else [host.strip("[]"), *more]
    return tuple(dict.fromkeys(name.lower() for name in names))


def addresses(host: str, port: int, allow_host: list[str]) -> list[str]:
    """Return the URLs of a server: from this machine, then from other machines if they differ.

    For 0.0.0.0 and ::, to which clients cannot connect on every system, these are a loopback
    address and the name of this machine; or the names of `allow_host`, as it rejects any other.
    """
    names = [host]
    if host in ("0.0.0.0", "::"):
        local = "127.0.0.1" if host == "0.0.0.0" else "::1"
        names = allow_host or [local, socket.gethostname()]
    return [f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in names]


def _ready(address: str, models: Models) -> dict[str, object]:
    return {
        "address": address,
        "models": [
            {
                "name": served.name,
                "version": served.current.version,
                "path": str(served.path),
                "classes": len(served.current.bundle.classes),
            }
            for served in models.all
        ],
    }


def _message(
    address: str, others: list[str], models: Models, settings: ServerSettings
) -> list[str]:
    paint = Paint(sys.stdout)
    header = "-H 'Authorization: Bearer TOKEN' " if settings.token else ""
    lines = [
        f"{paint('Page', 'bold')}     {address}/",
        *(f"         {other}/ from other machines" for other in others),
        f"{paint('Predict', 'bold')}  curl {header}-F images=@photo.jpg {address}/v1/predict",
    ]
    for number, served in enumerate(models.all):
        count = len(served.current.bundle.classes)
        title = paint("Models", "bold") + "   " if number == 0 else " " * 9
        name = printable(shlex.quote(served.name))
        lines.append(f"{title}{name} ({count:,} classes)")
    if settings.keep is not None:
        lines.append(
            f"{paint('Keeps', 'bold')}    corrected images in {printable(str(settings.keep))}"
        )
    return [*lines, paint("Ctrl-C ends the server.", "dim")]


class _Notes(logging.Handler):
    """Write the server's log as notes and errors of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message to standard error."""
        text = self.format(record)
        (complain if record.levelno >= logging.ERROR else note)(text)


def _log_to_stderr() -> None:
    handler = _Notes()
    for name, level in (("kindsight.server", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def studio(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="[DIR]",
            help="Project folder, new or existing. For a folder of images or a table, the project "
            "is created beside it, as DIR-studio.  [default: studio]",
            show_default=False,
        ),
    ] = "studio",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Folder of images, or table, to add to the project; its files are neither moved "
            "nor changed.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port on this machine; 0 for any free port.  [default: 8710, or a free port]",
            show_default=False,
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Opening of the page in a browser.")
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a classifier in a browser: collect, check, label, train, try, export.

    All data stay on this machine, in the project's folder. Every change is on disk before it is
    shown, and can be undone. Closing the page or stopping the command loses nothing.

    Example: kindsight studio

    Example: kindsight studio photos/
    """
    if any(map(_is_missing, STUDIO_NEEDS)):
        raise MissingExtraError("The studio", "studio")
    from kindsight.studio.assets import require_assets
    from kindsight.studio.serve import bind_port, serve
    from kindsight.studio.studio import Studio, open_folder

    require_assets()
    project, own = open_folder(Path(folder), data)
    listener = bind_port(port)
    try:
        opened = Studio(project, own)
    except BaseException:
        listener.close()
        raise

    def ready(address: str) -> None:
        if json:
            print_json({"address": address, "folder": str(project)})
        elif not quiet:
            say(f"Studio of {printable(str(project))}: {address}", "Stop it with Ctrl-C.")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(opened, listener, ready)
