"""The parts that all commands share: flags from the config, flag files by name, errors in one line."""

import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import re
import signal
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TextIO

import tensorflow as tf
from absl import flags

from experiments import files, options, signals
from experiments.config import ExperimentConfig, names
from experiments.signals import InterruptedRun
from pineat_tf.checks import data_errors_as_value_errors

FLAGFILES = pathlib.Path(__file__).parent / "flagfiles"
MAY_DIFFER = frozenset(names(scope="run")) - {"data_dir"}
"""Flags in which a run that goes on may differ. Data of a public name are ordered as their source has them."""
_LONGEST_FLAGFILE = 1 << 16  # bytes
_DEEPEST_FLAGFILE = 8  # a file that names two, each of which names two, ... has no end


def expand_flagfiles(argv: Sequence[str]) -> list[str]:
    """Puts the contents of every `--flagfile=NAME` in its place, so that what comes later wins.

    A name that is not in the working directory is looked up among the project's own flag files. Files may name
    further files. Lines that are empty or begin with `#` or `//` are comments.

    Raises:
        ValueError: if a file is missing, unreadable or too long, or names itself or files too deep in each other.
        flags.Error: if --flagfile has no name.
    """
    return _NamedFlagFiles().read_flags_from_files(list(argv))


class _NamedFlagFiles(flags.FlagValues):
    """absl's reader of flag files, which finds the project's own by name and refuses what would have no end."""

    def _get_flag_file_lines(self, filename: str, parsed_file_stack: list[str] | None = None) -> list[str]:
        path, around = str(_find_flagfile(filename)), parsed_file_stack or []
        if path in around or len(around) >= _DEEPEST_FLAGFILE:
            what = "itself" if path in around else "files too deep in each other"
            raise ValueError(f"flag file {around[0]!r} names {what}: {' -> '.join([*around, path])}")
        try:
            if os.path.getsize(path) > _LONGEST_FLAGFILE:
                raise ValueError(f"flag file {path!r} has more than {_LONGEST_FLAGFILE} bytes")
            lines = [*filter(None, super()._get_flag_file_lines(path, around))]
        except UnicodeDecodeError:
            raise ValueError(f"flag file {path!r} is not a text file") from None
        for line in lines:
            if "\0" in line:
                raise ValueError(f"flag file {path!r} is not a text file")
            if not line.startswith("-") or line == "--" or line.startswith(("--flagfile", "-flagfile")):
                raise ValueError(f"flag file {path!r} may hold only flags, one a line, but holds {line[:80]!r}")
        return lines


def define_flags(values: flags.FlagValues, *, several: Sequence[str] = ()) -> None:
    """Defines one flag for each field of `ExperimentConfig`; those in `several` take lists."""
    types = typing.get_type_hints(ExperimentConfig)
    for field in dataclasses.fields(ExperimentConfig):
        default, help_text = field.default, field.metadata["help"]
        if field.metadata["choices"]:
            help_text += " One of: " + ", ".join(choice or "empty" for choice in field.metadata["choices"]) + "."
        if field.name in several:
            help_text += " Several, with commas, are run one after the other."
            default = (default,)
        item = next(iter(typing.get_args(types[field.name])), str)
        define(values, field.name, default, help_text, item)


def configs_from(values: flags.FlagValues, *, several: str) -> list[ExperimentConfig]:
    """One config for each value of the flag `several`; `ValueError` if a flag has an effect in none of them."""
    configs = [config_from(values, **{several: one}) for one in getattr(values, several)]
    options.check_used(configs, lambda name: values[name].present)
    return configs


def configs_of_seeds(arguments: Sequence[str], seeds: Sequence[int]) -> tuple[ExperimentConfig, ...]:
    """One config for each seed, all else as the arguments say.

    Raises:
        ValueError: if an argument is no flag, or a flag has no such value or no effect.
    """
    values = flags.FlagValues()
    define_flags(values)
    try:
        rest = values(expand_flagfiles(["configs", *arguments]))[1:]
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if rest:
        raise ValueError(f"there is no use for {rest}; files come first, flags after them")
    configs = tuple(config_from(values, seed=seed) for seed in seeds)
    options.check_used(configs, lambda name: values[name].present)
    return configs


def config_from(values: flags.FlagValues, **overrides) -> ExperimentConfig:
    """The config that the flags describe, with some fields set otherwise."""
    given = {field.name: getattr(values, field.name) for field in dataclasses.fields(ExperimentConfig)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return ExperimentConfig(**{**given, **overrides})


def to_flags(config: ExperimentConfig, *, without: Sequence[str] = ()) -> str:
    """The config as a flag file, but for the flags named in `without`."""
    return "".join(f"--{name}={text(value)}\n" for name, value in config.to_dict(without=without).items())


def text(value: typing.Any) -> str:
    """The value of a field as a flag has it."""
    words = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return words.lower() if isinstance(value, bool) else words


def recorded_flags(config: ExperimentConfig, *, without: Sequence[str] = ()) -> str:
    """The config as the flag file that stays with its results: all but how to begin, and the flags in `without`."""
    return to_flags(config, without=(*names(recorded=False), *without))


def usage(intro: str, values: flags.FlagValues) -> str:
    """A help text: the intro, then every flag with its default."""
    lines = [intro.strip(), ""]
    for name in values:
        if name not in ("help", "helpshort", "h"):
            default = (values[name].default_as_str or "").strip("'[]")
            lines.append(f"  --{name} (default: {default or 'empty'})")
            lines += textwrap.wrap(values[name].help, width=96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def parsed(values: flags.FlagValues, argv: Sequence[str], intro: str) -> bool:
    """Reads a command line of flags only, as `arguments` does: whether to go on; `ValueError` for anything else."""
    rest = arguments(values, argv, intro)
    if rest:
        raise ValueError(f"there is no use for {rest}; flags begin with --. See --helpshort.")
    return rest is not None


def arguments(values: flags.FlagValues, argv: Sequence[str], intro: str) -> list[str] | None:
    """Reads a command line of flags and other arguments, into flags that are defined but for --help and --helpshort.

    Returns:
        The other arguments; None if the command line asks for help, which is then printed.
    """
    for name, short in (("help", "h"), ("helpshort", None)):
        flags.DEFINE_bool(name, False, "Print this text.", short_name=short, flag_values=values)
    values.set_gnu_getopt(True)
    rest = values(argv)[1:]
    if values.help or values.helpshort:
        print(usage(intro, values))
        return None
    return rest


def program(command: Callable[[list[str]], None]) -> Callable[[list[str] | None], int]:
    """Makes a command the `main` of a module: it takes `sys.argv` unless told otherwise, and gives the exit code."""
    return functools.wraps(command)(lambda argv=None: guarded(command, argv))


def guarded(command: Callable[[list[str]], None], argv: list[str] | None) -> int:
    """Runs a command; what goes wrong becomes one line on stderr and an exit code.

    What it prints after nobody reads it any more (`| head`) is lost, and the command goes on.

    Returns:
        0, 2 for bad input or files that cannot be read or written, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    with _outliving_readers():
        code, line = ended(command, sys.argv if argv is None else argv)
        if line:
            print(line, file=sys.stderr)
    return code


def ended(command: Callable[[list[str]], None], argv: list[str]) -> tuple[int, str]:
    """Runs a command; gives its exit code and the line that says why it ended, empty if it came to its end."""
    try:
        with signals.ending.listening(), data_errors_as_value_errors():
            command(argv)
    except OSError as error:
        return 2, f"error: {_one_line(str(error))}{_remedy(error)}"
    except (ValueError, flags.Error) as error:
        return 2, f"error: {_one_line(str(error))}"
    except tf.errors.OpError as error:
        system_error = files.system_error(error)
        if not system_error:
            raise
        return 2, f"error: {_one_line(str(system_error))}{_remedy(system_error)}"
    except InterruptedRun as interrupted:
        return interrupted.exit_code, f"interrupted: {interrupted}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT, "interrupted"
    return 0, ""


_REMEDIES = {
    errno.ENOSPC: "Free some space on that disk, or name a folder on another one",
    errno.EDQUOT: "Free some of your quota on that disk, or name a folder on another one",
    errno.EFBIG: "Raise the limit of file sizes (ulimit -f), or ask for less to be written",
    errno.EACCES: "Change its permissions, or name a place that is yours",
    errno.EPERM: "Change its permissions, or name a place that is yours",
    errno.EROFS: "Name a folder that can be written to",
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "A part of the path is a file; name a folder there",
    errno.EISDIR: "It is a folder; name a file",
    errno.EEXIST: "Remove it, or name another place",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ELOOP: "Its symbolic links lead in a circle; name the place itself",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "Ask for less at once, e.g. by a smaller --batch_size or --eval_batch_size",
    errno.EADDRINUSE: "Give this worker another port in TF_CONFIG, or end what listens there",
    errno.EIO: "The disk or its connection fails: try another one",
}


def _remedy(error: OSError) -> str:
    """A sentence that says how to mend what the system refused."""
    remedy = _REMEDIES.get(error.errno, "The operating system refused it; mend that, and run the command again")
    return f". {remedy}."


def _one_line(text: str) -> str:
    """A text that does nothing to a terminal: errors quote files of strangers, and Keras' own are bold."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())


class _Outliving:
    """A stream whose reader may go away."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._unless_broken(self._stream.write, text) or len(text)

    def flush(self) -> None:
        self._unless_broken(self._stream.flush)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _unless_broken(self, method: Callable, *args: str) -> object:
        try:
            return method(*args)
        except BrokenPipeError:
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())  # also for what the stream still holds
            return None


@contextlib.contextmanager
def _outliving_readers() -> Iterator[None]:
    out, err = _Outliving(sys.stdout), _Outliving(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()


class _FractionParser(flags.ArgumentParser):
    """Reads 0.1, 1e-4 or 8/255."""

    def parse(self, argument):
        text = str(argument).replace(" ", "")
        try:  # a Fraction of 1e999999999 would be written out
            return float(Fraction(text)) if "/" in text else float(text)
        except (ValueError, ArithmeticError):
            raise ValueError(f"must be a number like 0.1, 1e-4 or 8/255, not {argument!r}") from None

    def flag_type(self):
        return "float"


class _TupleParser(flags.ArgumentParser):
    """Reads a list with commas, each item by a parser of its own."""

    def __init__(self, item: Callable):
        super().__init__()
        self.item = item

    def parse(self, argument):
        parts = argument if isinstance(argument, (tuple, list)) else argument.split(",")
        return tuple(self.item(part) for part in parts if str(part).strip())

    def flag_type(self):
        return "comma separated list"


def _whole(text) -> int:
    try:
        return int(str(text).replace("_", ""))
    except ValueError:
        raise ValueError(f"must be whole numbers, not {text!r}") from None


_ITEMS = {float: _FractionParser().parse, int: _whole, str: str.strip}


def define(values: flags.FlagValues, name: str, default: typing.Any, help_text: str, item: type = str) -> None:
    """Defines one flag, whose type is that of its default; a tuple has items of the type `item`."""
    if isinstance(default, bool):
        flags.DEFINE_bool(name, default, help_text, flag_values=values)
    elif isinstance(default, int):
        flags.DEFINE_integer(name, default, help_text, flag_values=values)
    elif isinstance(default, float):
        flags.DEFINE(_FractionParser(), name, default, help_text, flag_values=values)
    elif isinstance(default, tuple):
        serializer = flags.ListSerializer(",")
        flags.DEFINE(_TupleParser(_ITEMS[item]), name, default, help_text, flag_values=values, serializer=serializer)
    else:
        flags.DEFINE_string(name, default, help_text, flag_values=values)


def _find_flagfile(name: str) -> pathlib.Path:
    for path in (pathlib.Path(os.path.expanduser(name)), FLAGFILES / name):
        if name and os.path.isfile(path):  # false, too, for what cannot be a name
            return path.resolve()
    known = ", ".join(sorted(path.name for path in FLAGFILES.glob("*.flags")))
    raise ValueError(f"there is no flag file {name!r} here or among the project's own: {known}")
