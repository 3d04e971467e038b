"""The reference of commands: every flag, from the parsers that read them."""

import argparse
import contextlib
import io
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from docs.generate import markdown
from prompt_tuning.launch import launch, main

# Commands whose words begin with a choice that has flags of its own.
_CHOICES = {"launch": tuple(launch.ENGINES)}


class Flag(NamedTuple):
  """One flag, or one argument by position.

  Attributes:
    names: how it is written; of an argument by position its placeholder.
    default: what it is without; empty where that says nothing.
    meaning: what it does.
    is_required: whether the command fails without.
  """

  names: tuple[str, ...]
  default: str
  meaning: str
  is_required: bool


def commands() -> Iterator[tuple[str, ...]]:
  """Yield every command with its choices: `("launch", "gke")`."""
  for name in main.COMMANDS:
    for choice in _CHOICES.get(name, ("",)):
      yield tuple(filter(None, (name, choice)))


def parsers(command: tuple[str, ...]) -> list[argparse.ArgumentParser]:
  """Collect the parsers that a command reads its words with.

  Args:
    command: such as `("launch", "gke")`.

  Returns:
    Parsers; of those with subcommands, these.
  """
  used: list[argparse.ArgumentParser] = []
  real = argparse.ArgumentParser.parse_known_args

  def spy(self, *args, **kwargs):
    used.append(self)
    return real(self, *args, **kwargs)

  patch = mock.patch.object(argparse.ArgumentParser, "parse_known_args", spy)
  printed = contextlib.redirect_stdout(io.StringIO())
  with patch, printed, contextlib.suppress(SystemExit):
    main.main([*command, "--help"])
  return [leaf for parser in used for leaf in _leaves(parser)]


def flags(parser: argparse.ArgumentParser) -> list[Flag]:
  """List a parser's flags, but for --help."""
  return [
    _flag(parser, action)
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction)
  ]


def page() -> str:
  """Write the page of all commands."""
  lines = ["# Commands and flags", ""]
  lines += [
    "Made from the parsers that read the command line. "
    "`prompt-tuning COMMAND --help` says the same.",
    "",
  ]
  for command in commands():
    lines += [f"## prompt-tuning {' '.join(command)}", ""]
    lines += [_sentence(main.COMMANDS[command[0]][1]), ""]
    if len(command) > 1:
      lines += [_sentence(launch.ENGINES[command[1]]), ""]
    for parser in parsers(command):
      if parser.prog.split()[1:] not in ([], list(command)):
        name = parser.prog.removeprefix("prompt-tuning ")
        lines += [f"### {name}", ""]
      rows = [_row(flag) for flag in flags(parser)]
      lines += [markdown.table(("flag", "meaning", "default"), rows), ""]
  return "\n".join(lines)


def _leaves(
  parser: argparse.ArgumentParser,
) -> Iterator[argparse.ArgumentParser]:
  choices = [
    action
    for action in parser._actions
    if isinstance(action, argparse._SubParsersAction)
  ]
  if not choices:
    yield parser
  for action in choices:
    for child in action.choices.values():
      yield from _leaves(child)


def _flag(parser: argparse.ArgumentParser, action: argparse.Action) -> Flag:
  formatter = parser._get_formatter()
  placeholder = formatter._format_args(action, _metavar(action))
  names = tuple(f"{name} {placeholder}".strip() for name in _names(action))
  meaning = formatter._expand_help(action) if action.help else ""
  is_positional = not action.option_strings
  return Flag(
    names or (placeholder,),
    _default(action),
    meaning,
    action.required and not (is_positional and action.nargs in ("?", "*")),
  )


def _names(action: argparse.Action) -> list[str]:
  return list(action.option_strings)


def _metavar(action: argparse.Action) -> str:
  if action.choices is not None and not action.metavar:
    return "{" + ",".join(map(str, action.choices)) + "}"
  return (action.dest if not action.option_strings else "").upper() or (
    action.dest.upper()
  )


def _default(action: argparse.Action) -> str:
  value = action.default
  if value in (None, False, argparse.SUPPRESS, "", (), []):
    return ""
  if isinstance(value, list | tuple):
    return " ".join(map(str, value))
  return str(value)


def _row(flag: Flag) -> tuple[str, str, str]:
  names = " ".join(markdown.code(name) for name in flag.names)
  default = "required" if flag.is_required else ""
  if flag.default:
    default = markdown.code(flag.default)
  return names, markdown.escaped(flag.meaning), default


def _sentence(text: str) -> str:
  return markdown.escaped(f"{text[:1].upper()}{text[1:]}.")
