"""What a Workspace by itself is refused for or warned of: the admission rules' words, as findings. Pure.

Sizes and memory are left to `sizing`, which knows more of them: the config, and which of several sizes will do.
"""

import datetime
import difflib
import re

from artifacts.addresses import AddressRefused, Policy, split
from kaito_hera import admission, errors, models, runtimes
from kaito_hera.admission import addresses, images, sizes, words
from kaito_hera.api import Workspace, annotations
from kaito_hera.findings import Finding
from kaito_hera.settings import NO_AZURE, Settings

_OF_SIZES = frozenset(rule.name for rule in (*sizes.WITH_TABLES, *sizes.WITH_SETTINGS))
"""Rules about sizes, parts of a GPU and memory."""

_PAGE = re.compile("https?://(www[.])?(huggingface[.]co|hf[.]co)/[^?#]*/blob/", re.IGNORECASE)


def findings(workspace: Workspace, settings: Settings, on: datetime.date) -> list[Finding]:
    """All of it, on that day."""
    found = []
    for problem in admission.problems(workspace, settings, on):
        if problem.rule.name not in _OF_SIZES:
            field, _, text = problem.message.partition(": ")
            fatal = problem.severity == "error" or problem.rule.name == images.UNREPLACED
            close = _close(field) if problem.rule.name == words.STRANGE and ": write" not in text else ""
            found.append(Finding(problem.error, field, text, close, fatal=fatal))
    found += [*models.notes(workspace), *_of_serving(workspace), *_of_annotations(workspace)]
    found += runtimes.findings(workspace, settings, models.find(workspace))
    return [*found, *_of_settings(settings)]


def _close(field: str) -> str:
    """An annotation that may be meant."""
    known = [f"metadata.annotations[{annotation.key}]" for annotation in annotations.KNOWN]
    close = difflib.get_close_matches(field, known, 1, 0.9)
    return f"did you mean {close[0].partition('[')[2].rstrip(']')}?" if close else ""


def _of_settings(settings: Settings) -> list[Finding]:
    """What no Workspace can mend."""
    if settings.node_provider == "byo" or settings.azure:
        return []
    return [Finding(errors.ConfigInvalidError, "setting azure", NO_AZURE)]


def data(workspace: Workspace, settings: Settings) -> list[Finding]:
    """Data at a private address that the settings do not allow, or a page about it, as far as the text says so.

    The look at the data, which a preflight has made where there is something to tune, says it of all.
    """
    found, policy = [], Policy(settings.allowed_private_cidrs)
    urls = workspace.tuning.input.urls if workspace.tuning else ()
    for at, url in enumerate(urls):
        try:
            if not addresses.reason(url):
                split(url, policy)
        except AddressRefused as cause:
            problem, _, remedy = str(cause).partition("; ")
            found.append(Finding(errors.InvalidWorkspaceError, f"tuning.input.urls[{at}]", problem, remedy))
        if _PAGE.match(url):
            problem, remedy = "is the hub's page about the file, not the file", "write /resolve/ in place of /blob/"
            found.append(Finding(errors.InvalidWorkspaceError, f"tuning.input.urls[{at}]", problem, remedy))
    return found


def _of_serving(workspace: Workspace) -> list[Finding]:
    """What an adapter on a volume costs, and settings of a server that is not wanted."""
    error = errors.InvalidWorkspaceError
    if not workspace.serves:
        text = "nothing is served, since tuning.serve or the annotation kaito.sh/serve is false"
        return [Finding(error, "inference", text, fatal=False)] if workspace.inference else []
    text = "the server mounts this volume, so to add, exchange or remove it restarts the server"
    remedy = "adapters in images change without a restart"
    return [
        Finding(error, f"inference.adapters[{at}].source.volumeSource", text, remedy, fatal=False)
        for at, adapter in enumerate(workspace.adapters)
        if adapter.source.volume_source
    ]


def _of_annotations(workspace: Workspace) -> list[Finding]:
    """What is asked of a server of ours where there is none."""
    error, own = (
        errors.InvalidWorkspaceError,
        {
            annotations.API_KEY: ("would be open all the same", "let your own server ask for it"),
            annotations.CACHE: ("fetches its own files", "mount the claim in inference.template"),
        },
    )
    found = []
    for key, (text, remedy) in own.items():
        field = f"metadata.annotations[{key}]"
        if workspace.annotation(key) and not workspace.serves:
            found.append(Finding(error, field, "has no effect, since nothing is served", fatal=False))
        elif workspace.annotation(key) and not workspace.preset:
            told = f"a pod of your own (inference.template) {text}"
            found.append(Finding(error, field, told, f"{remedy}, and take the annotation out"))
    return found
