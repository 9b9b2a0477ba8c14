"""What can be said to `python -m tuning`, with the help for it. Imports what a command needs when it is asked for."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from artifacts import docker, strangers
from tuning import flags
from tuning.config import Progress, Result, TuningConfig
from tuning.errors import ConfigInvalid
from tuning.eviction import Eviction
from tuning.places import Places, scratch
from tuning.report import Report

_PLACES = {
    "scratch": "a writable folder for downloads",
    "push_auth": "a .dockerconfigjson to push with; may be missing",
    "pull_auth": "a .dockerconfigjson to pull with; may be missing",
    "results": "where the output's volume is mounted",
}

_WHOLE = """Trains a LoRA or QLoRA adapter and puts it into a registry or a folder.

Each command works by itself, in a pod or on a laptop; `python -m tuning COMMAND --help` says more. Words for people go
to stderr. Exit codes: 0 done, 2 wrong usage, 10 config, 11 data, 12 base model, 20 too large for the GPU, 21 the loss
diverged, 30 and 31 registry refuses, 40 network, 41 registry away, 42 disk or GPU, 75 evicted, 1 anything else."""

_RUN = """Fetches model and data, trains, and pushes. Either by a CONFIG that the operator wrote, or by flags:

  python -m tuning run --model microsoft/Phi-3-mini-4k-instruct --data rows.jsonl --output ./adapter
  python -m tuning run --model ./weights --data https://example.com/a.parquet --output reg.io/team/adapter:1

Rows may be messages, conversations, prompt and completion, instruction and response, or text. The same command again
goes on from the last checkpoint of an --output folder, and does nothing where the adapter is there already.
Progress goes to stdout, one JSON object a line after `progress: `."""

_VALIDATE = """Sees in seconds whether a run can work: needs no GPU and no torch.

Looks at the training config, the model's tokenizer and chat template, the first rows of each input (shown as the model
will read them, what is learned from between ⟦ and ⟧), whether the push would be let in, and whether the adapter is
there already. Takes what `run` takes:

  python -m tuning validate --model microsoft/Phi-3-mini-4k-instruct --data rows.jsonl --output ./adapter"""

_ESTIMATE = """Says what one GPU has to hold for a run, part by part, and which GPU sizes of a cloud do. Needs no torch.

  python -m tuning estimate --model phi-4 --method qlora --max-length 4096 --rows 1
  python -m tuning estimate --model ORG/NAME --method lora --config training_config.yaml --cloud aws

An estimate: at most 11 % below published figures, which is the margin that sizes must have beside it."""

_PULL = """Brings an adapter out of a registry: of ours, of KAITO's, or any image with /data/adapter_config.json.

  python -m tuning pull reg.io/team/adapter:1 ./adapter

Only regular files are unpacked, digests are checked. A password is taken from --pull-auth."""

_PUSH = """Puts a folder with an adapter (adapter_config.json and adapter_model.safetensors) into a registry, as an
image that KAITO and this project serve. The same files are the same digest. Of a folder that `run` made it is the image
that `run` would have pushed, card and all. Needs no GPU and no torch.

  python -m tuning push ./adapter reg.io/team/adapter:1"""


def parser() -> argparse.ArgumentParser:
    """All commands; what is parsed has `do`, which is given it and the eviction."""
    whole = _Parser(prog="python -m tuning", description=_WHOLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for name, text, do in (("run", _RUN, _run), ("validate", _VALIDATE, _validate)):
        command = _add(commands, name, text, do)
        command.add_argument("config", type=Path, metavar="CONFIG", nargs="?", help="path of a TuningConfig as JSON")
        flags.add_to(command)
        for place, what in _PLACES.items():
            _add_place(command, place, what)
    flags.add_load_to(_add(commands, "estimate", _ESTIMATE, _estimate))
    pull = _add(commands, "pull", _PULL, _pull)
    pull.add_argument("image", metavar="IMAGE")
    pull.add_argument("folder", metavar="FOLDER", type=Path, help="is made; must be empty if it is there")
    pull.add_argument("--pull-auth", type=Path, default=docker.own_file(), help="default: %(default)s")
    push = _add(commands, "push", _PUSH, _push)
    push.add_argument("folder", metavar="FOLDER", type=Path)
    push.add_argument("image", metavar="IMAGE")
    push.add_argument("--push-auth", type=Path, default=docker.own_file(), help="default: %(default)s")
    push.add_argument(
        "--seconds",
        type=flags.between(float, 0, 1e9),
        default=600.0,
        help="for so long what refuses it is asked again; default: %(default)s",
    )
    renew = "an adapter whose card says the intent OLD is pushed as of NEW: its Workspace names another place by now"
    push.add_argument("--renew", nargs=2, default=(), metavar=("OLD", "NEW"), help=renew)
    push.add_argument("--progress", action="store_true", help="progress lines on stdout, as of `run`")
    return whole


class _Parser(argparse.ArgumentParser):
    """Says with a mistake how it is done."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n{self.format_usage()}`{self.prog} --help` says more\n")


def _add(commands: Any, name: str, text: str, do: Any) -> argparse.ArgumentParser:
    line = text.partition(". ")[0].partition(": ")[0]
    formatter = argparse.RawDescriptionHelpFormatter
    added: argparse.ArgumentParser = commands.add_parser(name, help=line, description=text, formatter_class=formatter)
    added.set_defaults(do=do, error=added.error)
    return added


def _add_place(command: argparse.ArgumentParser, name: str, what: str) -> None:
    option = f"--{name.replace('_', '-')}"
    command.add_argument(option, type=Path, help=f"{what} (with CONFIG by default {getattr(Places(), name)})")


@contextlib.contextmanager
def _asked(asked: argparse.Namespace) -> Iterator[tuple[TuningConfig, Places]]:
    """What is to be done and where, by CONFIG or by flags."""
    named = [f"--{name}" for name in flags.NEEDED if getattr(asked, name) and name != "data"]
    missing = [f"--{name}" for name in flags.NEEDED if not getattr(asked, name)]
    given = {name: value for name in _PLACES if (value := getattr(asked, name)) is not None}
    if asked.config and named:
        asked.error(f"CONFIG says all, it goes without {', '.join(named)}")
    elif asked.config:
        yield _config(asked.config), Places(**given, **({"data": Path(asked.data[0])} if asked.data else {}))
    elif missing:
        asked.error(f"give CONFIG, or {', '.join(missing)}")
    else:
        with scratch() as folder:
            yield flags.asked(asked, Places(**{"scratch": folder, **given}))


def _run(asked: argparse.Namespace, eviction: Eviction) -> Result:
    from tuning import onlookers, run  # noqa: PLC0415 -- the other commands need none of it

    with _asked(asked) as (config, places), onlookers.told(config, places) as report:
        return run.Run(config, places, report, eviction).go()


def _validate(asked: argparse.Namespace, _eviction: Eviction) -> Result:
    from tuning import check  # noqa: PLC0415

    with _asked(asked) as (config, places):
        return check.check(config, places)


def _estimate(asked: argparse.Namespace, _eviction: Eviction) -> None:
    from tuning import estimate  # noqa: PLC0415

    for line in estimate.lines(asked):
        print(line)  # noqa: T201


def _pull(asked: argparse.Namespace, _eviction: Eviction) -> None:
    from tuning.output import carry  # noqa: PLC0415

    print(carry.pull(asked.image, asked.folder, asked.pull_auth))  # noqa: T201


def _push(asked: argparse.Namespace, eviction: Eviction) -> Result:
    from tuning.output import carry, patience  # noqa: PLC0415

    report = Report(sys.stdout if asked.progress else None)

    def tell(text: str) -> None:
        report.say(Progress(phase="push", percent=95, message=text))

    tell("")
    waits = patience.Patience(eviction, seconds=asked.seconds, tell=tell)
    made = carry.push(asked.folder, asked.image, auth=asked.push_auth, waits=waits, renewed=asked.renew)
    print(made)  # noqa: T201
    return Result(adapter=made)


def _config(path: Path) -> TuningConfig:
    try:
        return TuningConfig.model_validate_json(strangers.content(path))
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}; give the path of a TuningConfig as JSON") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigInvalid(
            f"{path}: {where}: {first['msg']}, found {str(first['input'])[:200]!r}; "
            "operator and image must be of one release"
        ) from error
