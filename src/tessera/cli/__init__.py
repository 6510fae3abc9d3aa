"""The command line: the only user of tyro, and the only place that prints. It imports torch only where work begins."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from tessera import __version__
from tessera.cli.data import data
from tessera.cli.edit import edit
from tessera.cli.evaluate import compare, evaluate
from tessera.cli.exchange import bring_in, send_out
from tessera.cli.generate import generate
from tessera.cli.hub import pull, push
from tessera.cli.screen import notice, say, unread
from tessera.cli.serve import serve, studio
from tessera.cli.stopping import Stopped
from tessera.cli.train import demo, learn, show, train
from tessera.config.merging import nearest, short
from tessera.errors import REQUEUE, ConfigError, TesseraError
from tessera.machine.launch import die_with_the_launcher, wait_politely
from tessera.train.signals import Interrupted, Terminated, terminable

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "learn": learn,
    "train": train,
    "generate": generate,
    "edit": edit,
    "evaluate": evaluate,
    "compare": compare,
    "serve": serve,
    "studio": studio,
    "import": bring_in,
    "export": send_out,
    "push": push,
    "pull": pull,
    "show": show,
    "data": data,
}

UNREAD = 141
"""The exit status that shells expect where nobody reads any longer: 128 and the number of SIGPIPE."""

RESUMABLE = ("demo", "learn", "train", "evaluate", "push", "pull")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. A user's mistake ends with one sentence and exit status 2."""
    die_with_the_launcher()
    wait_politely()
    warnings.formatwarning = notice
    # DeepSpeed's launcher tells each process its rank twice.
    args = [a for a in (sys.argv[1:] if argv is None else argv) if not a.startswith(("--local_rank", "--local-rank"))]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's streams have no encoding to fail in
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        run(args)
    except BrokenPipeError:
        if not unread():
            raise  # another pipe
        sys.exit(UNREAD)
    except TesseraError as error:
        print(f"tessera: {error}", file=sys.stderr)
        sys.exit(REQUEUE if isinstance(error, Interrupted) else 2)
    except Stopped as stopped:
        print(f"\ntessera: {stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except KeyboardInterrupt as stop:
        again = " Give the same command again to go on." if args[0] in RESUMABLE else ""
        print(f"\ntessera: stopped.{again}", file=sys.stderr)
        sys.exit(REQUEUE if isinstance(stop, Terminated) else 130)


def run(args: Sequence[str]) -> None:
    """One command, or what there is to say of all."""
    if not args or args[0] in ("-h", "--help", "help"):
        overview()
    elif args[0] == "--version":
        say(__version__)
    elif args[0] in COMMANDS:
        with terminable():
            COMMANDS[args[0]](list(args[1:]))
    else:
        raise ConfigError(
            f"There is no command '{short(args[0], '')}'{nearest(args[0], COMMANDS) or '.'} Try: tessera --help"
        )


def overview() -> None:
    say(f"Tessera {__version__}: train your own text-to-image transformer on your own captioned pictures.\n")
    say("usage: tessera COMMAND ...\n")
    for name, command in COMMANDS.items():
        what, _, words = (command.__doc__ or "").strip().rpartition("  ")
        say(f"  {name + ' ' + what:<26} {words}")
    say("\nBegin with:  tessera demo     or, with your own pictures:  tessera learn PICTURES --budget 30m")
    say("Options of a command:  tessera COMMAND --help")
