"""Presets, GPU sizes and settings: what can never work though every field is well written."""

from kaito_hera import errors
from kaito_hera.admission import tables
from kaito_hera.admission.rule import Case, Rule, matches, matching, quote, quoted
from kaito_hera.api import annotations
from kaito_hera.runtimes import wants_vllm

_HUB = "[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
_BOTH = ("tuning.preset.name", "inference.preset.name")
_OPTIONS = ("tuning.preset", "inference.preset")


def _row(name: str, column: str) -> str:
    return f"variables.{name}[{tables.column(column)}]"


def variables() -> dict[str, str]:
    """CEL that the rules with tables share."""
    of = "object.?tuning.?preset.{0}.or(object.?inference.?preset.{0}).orValue('')"
    key = "variables.model.lowerAscii().replace('/', '--')"
    size = "object.resource.?instanceType.orValue('')"
    listed = "object.resource.?instanceTypes.orValue([])"
    said = f"object.metadata.?annotations[?'{annotations.SERVE}'].orValue('').trim().lowerAscii()"
    return {
        "model": of.format("?name"),
        "field": "has(object.tuning) ? 'tuning.preset' : 'inference.preset'",
        "found": f"variables.model.contains('--') ? '' : params.data[?('preset.' + {key})].orValue('')",
        "row": "variables.found.split(' ')",
        "options": "(has(object.tuning) ? object.tuning.preset : object.?inference.?preset.orValue({}))"
        ".?presetOptions.orValue({})",
        "serves": f"!has(object.tuning) || (object.tuning.?serve.orValue(true) && {said} != 'false')",
        "vllm": f"object.metadata.?annotations[?'{annotations.RUNTIME}'].orValue('').trim().lowerAscii() == 'vllm'",
        "sizes": f"{listed} + ({size} != '' ? [{size}] : [])",
        "sized": "size(" + listed + ") > 0 ? 'resource.instanceTypes' : 'resource.instanceType'",
    }


def _model(case: Case) -> str:
    return case.workspace.preset.name if case.workspace.preset else ""


def _known(case: Case) -> tables.Preset | None:
    return case.tables.preset(_model(case))


def _field(case: Case) -> str:
    return "tuning.preset" if case.workspace.tuning else "inference.preset"


def _unknown(case: Case) -> list[str]:
    name = _model(case)
    hub = matches(_HUB, name) and "--" not in name and ".." not in name
    if not name or _known(case) or hub:
        return []
    family = plain(name).split("-")[0]
    near = [one for one in case.tables.names() if one.startswith(family)]
    close = f"these are: {', '.join(near)}" if near else "`kaito-hera presets` lists those that are"
    return [f"{_field(case)}.name: {quoted(name)} is no preset, nor ORG/MODEL of Hugging Face: {close}"]


def plain(name: str) -> str:
    """In lower case, as CEL makes it."""
    return annotations.lower(name)


_NEAR = "params.data.names.split(' ').filter(n, n.startsWith(variables.model.lowerAscii().split('-')[0]))"
_UNKNOWN = (
    f"variables.model != '' && variables.found == '' && !({matching(_HUB, 'variables.model')}"
    " && !variables.model.contains('--') && !variables.model.contains('..'))"
    f" ? [[variables.model].map(m, {quote('m')})[0]].map(m, [{_NEAR}].map(near, variables.field + '.name: ' + m"
    " + ' is no preset, nor ORG/MODEL of Hugging Face: '"
    " + (size(near) > 0 ? 'these are: ' + near.join(', ') : '`kaito-hera presets` lists those that are'))[0]) : []"
)


def _fixed(case: Case) -> list[str]:
    row = _known(case)
    if not (case.workspace.tuning and row and row.tuning == "fixed"):
        return []
    able = ", ".join(case.tables.tunable())
    return [f"tuning.preset.name: {_model(case)} cannot be tuned; these can: {able}"]


def _elsewhere(case: Case) -> list[str]:
    row = _known(case)
    if not (case.workspace.serves and row and row.runtime == "other") or wants_vllm(case.workspace):
        return []
    return [f"{_field(case)}.name: {_model(case)} {_NOT_SERVED}"]


_NOT_SERVED = (
    f"is served by vLLM alone: annotate the Workspace with {annotations.RUNTIME}: vllm, if the platform team has its"
    " image (setting vllmImage)"
)


def _gated(case: Case) -> list[str]:
    row, preset = _known(case), case.workspace.preset
    if not row or not preset or preset.options.image or preset.options.model_access_secret or row.access == "public":
        return []
    if row.access == "gated":
        return [f"{_field(case)}.presetOptions.modelAccessSecret: {preset.name} {_GATED}"]
    return [f"{_field(case)}.presetOptions.image: {preset.name} {_PRIVATE}"]


_GATED = (
    "is given only to those who accepted its licence: name a Secret with the key HF_TOKEN,"
    " or an image with its files in presetOptions.image"
)
_PRIVATE = "is not public: name an image with its files, or in presetOptions.modelAccessSecret a Secret with HF_TOKEN"
_GATED_CEL = (
    "variables.found != '' && variables.options.?image.orValue('') == ''"
    " && variables.options.?modelAccessSecret.orValue('') == ''"
    f" && {_row('row', 'access')} != 'public' ? [variables.field + ({_row('row', 'access')} == 'gated'"
    f" ? '.presetOptions.modelAccessSecret: ' + variables.model + ' {_GATED}'"
    f" : '.presetOptions.image: ' + variables.model + ' {_PRIVATE}')] : []"
)


def _old(case: Case) -> list[str]:
    row = _known(case)
    return [f"{_field(case)}.name: {_model(case)} {_OLD}"] if row and row.upstream == "deprecated" else []


_OLD = "is deprecated: KAITO no longer takes it, here it still runs; `kaito-hera presets` lists newer ones"

RULES = (
    Rule("V20 unknown preset", _BOTH, _UNKNOWN, _unknown, needs="tables", error=errors.UnknownPresetError),
    Rule(
        "A4 preset that cannot be tuned",
        ("tuning.preset.name",),
        f"has(object.tuning) && variables.found != '' && {_row('row', 'tuning')} == 'fixed'"
        " ? ['tuning.preset.name: ' + variables.model + ' cannot be tuned; these can: ' + params.data.tunable] : []",
        _fixed,
        needs="tables",
        error=errors.PresetNotTunableError,
    ),
    Rule(
        "V23 preset that cannot be served",
        (
            *_BOTH,
            "tuning.serve",
            *(f"metadata.annotations[{each}]" for each in (annotations.SERVE, annotations.RUNTIME)),
        ),
        f"variables.serves && !variables.vllm && variables.found != '' && {_row('row', 'runtime')} == 'other'"
        f" ? [variables.field + '.name: ' + variables.model + ' {_NOT_SERVED}'] : []",
        _elsewhere,
        needs="tables",
        error=errors.PresetNotServableError,
    ),
    Rule("V26 access to the model", _OPTIONS, _GATED_CEL, _gated, needs="tables"),
    Rule(
        "V21 deprecated preset",
        _BOTH,
        f"variables.found != '' && {_row('row', 'upstream')} == 'deprecated'"
        f" ? [variables.field + '.name: ' + variables.model + ' {_OLD}'] : []",
        _old,
        needs="tables",
        severity="warning",
    ),
)
