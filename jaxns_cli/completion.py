"""`jaxns completion`: what shtab makes of the parser."""

import argparse

import shtab  # pyright: ignore[reportMissingImports]

from jaxns_cli.parser import build


def run(arguments: argparse.Namespace) -> int:
    parser = build()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar == "CONFIG":
                action.complete = shtab.cmd("jaxns list --names")
            elif action.type is not None and action.metavar in ("DIR", "FILE"):
                action.complete = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY
    print(shtab.complete(parser, arguments.shell))
    return 0
