"""GPU sizes: known, with enough memory, not given up by their cloud; and what the platform's settings ask of them."""

import dataclasses

import presets
from kaito_hera import errors
from kaito_hera.admission import tables
from kaito_hera.admission.rule import Case, Rule, quote, quoted
from kaito_hera.api import annotations
from kaito_hera.runtimes import wants_vllm

_SIZES = ("resource.instanceType", "resource.instanceTypes")
_PRESET = ("tuning.preset.name", "inference.preset.name")
_BYPASS = f"metadata.annotations[{annotations.BYPASS}]"
_BYPASSED = f"('{annotations.BYPASS}' in object.metadata.?annotations.orValue({{}}))"

_UNKNOWN = "is no GPU size that kaito-hera knows (`kaito-hera sizes` lists them); on nodes that you bring leave it out"
_HELD_BY_NONE = "no size holds it: take a smaller model"
_UNSERVED = "set tuning.serve to false"
_QUANTISED = "set tuning.method to qlora"
_NEARLY = 1.3
"""So many times what a GPU has may be a matter of the estimate; above it nobody knows better."""
_REMEDY = f"annotate the Workspace with {annotations.BYPASS} if you know better: then it is tried, at your risk"


def _field(case: Case) -> str:
    return "resource.instanceTypes" if case.workspace.resource.instance_types else "resource.instanceType"


def _data(kind: str, name: str) -> str:
    return f"params.data[?('{kind}.' + {name}.lowerAscii())].orValue('')"


def _unknown(case: Case) -> list[str]:
    bad = [size for size in case.workspace.resource.sizes if not case.tables.usable(size)]
    return [f"{_field(case)}: {quoted(size)} {_UNKNOWN}" for size in bad]


@dataclasses.dataclass(frozen=True)
class _Need:
    """What one GPU must hold: the row's words."""

    verb: str
    gib: str
    holder: str
    less: str
    """How the Workspace could ask for less."""
    here: bool = True
    """It can be done here, were the GPU large enough."""


def _needs(case: Case, row: tables.Preset) -> list[_Need]:
    workspace = case.workspace
    if workspace.resource.partition and workspace.resource.partition.profile:
        return []
    found = []
    if workspace.tuning:
        lora = workspace.tuning.method == "lora"
        gib, holder = (row.lora, row.for_lora) if lora else (row.qlora, row.for_qlora)
        fits = any(float(case.tables.usable(size) or 0) >= float(row.qlora) for size in workspace.resource.sizes)
        found.append(_Need("tune", gib, holder, _QUANTISED if lora and fits else ""))
    if workspace.serves and not wants_vllm(workspace):  # preflight knows how many GPUs it takes
        less = _UNSERVED if workspace.tuning else ""
        found.append(_Need("serve", row.serve, row.for_serve, less, here=row.runtime != "other"))
    return found


def _too_small(case: Case) -> list[str]:
    """For each thing to do that no named size can hold; sizes that nobody knows might."""
    sizes, preset = case.workspace.resource.sizes, case.workspace.preset
    gib, row = [case.tables.usable(size) for size in sizes], case.tables.preset(preset.name) if preset else None
    if row is None or not gib or not {"", "0.0"}.isdisjoint(gib):
        return []
    has = ", ".join(f"{size} has {usable} GiB" for size, usable in zip(sizes, gib, strict=True))
    most = max(map(float, gib))
    return [
        f"{_field(case)}: {has} of usable memory per GPU, to {need.verb} {case.workspace.preset_name} needs {need.gib}"
        f" GiB; {_advice(need, row.smaller, 0.0 if _bypassed(case) else most)}"
        for need in _needs(case, row)
        if most < float(need.gib) and not (need.verb == "serve" and _together(case, row))
    ]


def _together(case: Case, row: tables.Preset) -> bool:
    """Whether all GPUs of a node of some size serve what one does not hold."""
    partition = case.workspace.resource.partition
    for size in case.workspace.resource.sizes:
        gpus = float(partition.count or 1) if partition else float(case.tables.gpus(size) or 1)
        if gpus > 1 and float(row.each) + float(row.spread) / gpus <= float(case.tables.usable(size)):
            return True
    return False


def _advice(need: _Need, smaller: str, most: float) -> str:
    such = "" if smaller == "-" else f", such as {smaller}"
    larger = f"take {need.holder}" if need.holder != "-" else f"{_HELD_BY_NONE}{such}"
    tried = need.here and float(need.gib) <= most * _NEARLY
    return ", or ".join(filter(None, (larger, need.less, _REMEDY if tried else "")))


def _column(name: str) -> str:
    return f"variables.row[{tables.column(name)}]"


def variables() -> dict[str, str]:
    """CEL of what one GPU must hold, by verb: GiB and a size that has them; and the messages about it."""
    lora = "object.tuning.method.lowerAscii() == 'lora'"
    tune = ", ".join(f"{lora} ? {_column(f'{part}lora')} : {_column(f'{part}qlora')}" for part in ("", "for_"))
    serve = f"[['serve', {_column('serve')}, {_column('for_serve')}]]"
    usable = _data("size", "s")
    count, own = "object.resource.?partition.?count.orValue(1)", _data("gpus", "s")
    gpus = f"object.resource.?partition.hasValue() ? double({count}) : {own} == '' ? 1.0 : double({own})"
    together = (
        f"variables.sizes.exists(s, [{gpus}].exists(g, g > 1.0"
        f" && double({_column('each')}) + double({_column('spread')}) / g <= double({usable})))"
    )
    known = f"variables.sizes.all(s, !({usable} in ['', '0.0']))"
    smaller = _column("smaller")
    here = f"(n[0] == 'tune' || {_column('runtime')} != 'other')"
    nearly = f"variables.sizes.exists(s, double(n[1]) <= double({usable}) * {_NEARLY})"
    advice = (
        f"[n[2] == '-' ? '{_HELD_BY_NONE}' + ({smaller} == '-' ? '' : ', such as ' + {smaller}) : 'take ' + n[2],"
        f" n[0] == 'serve' ? (has(object.tuning) ? '{_UNSERVED}' : '') : {lora}"
        f" && variables.sizes.exists(s, double({usable}) >= double({_column('qlora')})) ? '{_QUANTISED}' : '',"
        f" {here} && {nearly} && !{_BYPASSED} ? '{_REMEDY}' : ''].filter(a, a != '').join(', or ')"
    )
    return {
        "needs": "variables.found == '' || object.resource.?partition.?profile.hasValue() ? []"
        f" : (has(object.tuning) ? [['tune', {tune}]] : []) + (variables.serves && !variables.vllm ? {serve} : [])",
        "too_small": f"size(variables.sizes) == 0 || !{known} ? []"
        f" : variables.needs.filter(n, variables.sizes.all(s, double({usable}) < double(n[1]))"
        f" && !(n[0] == 'serve' && {together})).map(n,"
        f" variables.sized + ': ' + variables.sizes.map(s, s + ' has ' + {usable} + ' GiB').join(', ')"
        " + ' of usable memory per GPU, to ' + n[0] + ' ' + variables.model + ' needs ' + n[1] + ' GiB; '"
        f" + {advice})",
    }


def _bypassed(case: Case) -> bool:
    return annotations.BYPASS in case.workspace.metadata.annotations


def _without_kernels(case: Case) -> list[str]:
    sizes = case.workspace.resource.sizes if case.workspace.preset else ()
    return [f"{_field(case)}: {said}" for size in sizes if (said := case.tables.kernels(size))]


def _retired(case: Case) -> list[str]:
    sizes = case.workspace.resource.sizes
    return [f"{_field(case)}: {said}" for size in sizes if (said := case.tables.last_day(size))]


def _noted(kind: str) -> str:
    return f"variables.sizes.filter(s, {_data(kind, 's')} != '').map(s, variables.sized + ': ' + {_data(kind, 's')})"


_MEMORY = (
    *(*_SIZES, *_PRESET, "tuning.method", "tuning.serve", _BYPASS),
    *(f"metadata.annotations[{each}]" for each in (annotations.SERVE, annotations.RUNTIME)),
)

WITH_TABLES = (
    Rule(
        "V12 unknown GPU size",
        _SIZES,
        f"variables.sizes.filter(s, {_data('size', 's')} == '').map(s, variables.sized + ': ' + {quote('s')}"
        f" + ' {_UNKNOWN}')",
        _unknown,
        needs="tables",
        error=errors.UnknownInstanceTypeError,
    ),
    Rule(
        "V13 GPU memory",
        _MEMORY,
        f"{_BYPASSED} ? [] : variables.too_small",
        lambda case: [] if _bypassed(case) else _too_small(case),
        needs="tables",
        error=errors.InsufficientGPUMemoryError,
    ),
    Rule(
        "V13 GPU memory, bypassed",
        _MEMORY,
        f"{_BYPASSED} ? variables.too_small : []",
        lambda case: _too_small(case) if _bypassed(case) else [],
        needs="tables",
        severity="warning",
    ),
    Rule(
        "V12 GPU size without kernels",
        (*_SIZES, *_PRESET),
        f"variables.model == '' ? [] : {_noted('kernels')}",
        _without_kernels,
        needs="tables",
        severity="warning",
    ),
    Rule("V12 retired GPU size", _SIZES, _noted("last"), _retired, needs="tables", severity="warning"),
)

_RETIRED_BY = {size.name.lower(): size.retired_on.isoformat() for size in presets.sizes().values() if size.retired_on}
_RETIRED_CEL = "{" + ", ".join(f"'{name}': '{day}'" for name, day in sorted(_RETIRED_BY.items())) + "}"
_GONE = "is retired and the setting retiredSizes refuses such sizes; name another one"
_UNSIZED = "resource.instanceType: is missing; name the size of the nodes to make, for example Standard_NC24ads_A100_v4"
_PARTITION = (
    "resource.partition: nodes that are made here have whole GPUs: take it out, or have the setting nodeProvider be byo"
)


def _setting(name: str, default: str) -> str:
    return f"params.?data[?'{name}'].orValue('{default}').trim()"


def settings_variables() -> dict[str, str]:
    """CEL that the rules with settings share."""
    size = "object.resource.?instanceType.orValue('')"
    listed = "object.resource.?instanceTypes.orValue([])"
    return {
        "sizes": f"{listed} + ({size} != '' ? [{size}] : [])",
        "sized": f"size({listed}) > 0 ? 'resource.instanceTypes' : 'resource.instanceType'",
        "makes": f"{_setting('nodeProvider', 'byo')} != 'byo'",
        "retired": _RETIRED_CEL,
        "day": "object.metadata.?creationTimestamp.orValue('').substring(0, 10)",
    }


def _gone(case: Case) -> list[str]:
    if case.settings.retired_sizes != "refuse":
        return []
    day = case.on.isoformat()
    bad = [size for size in case.workspace.resource.sizes if _RETIRED_BY.get(annotations.lower(size), "9") <= day]
    return [f"{_field(case)}: {quoted(size)} {_GONE}" for size in bad]


WITH_SETTINGS = (
    Rule(
        "V4 no GPU size",
        _SIZES,
        f"variables.makes && size(variables.sizes) == 0 ? ['{_UNSIZED}'] : []",
        lambda case: [_UNSIZED] if case.settings.node_provider != "byo" and not case.workspace.resource.sizes else [],
        needs="settings",
    ),
    Rule(
        "V11 partition of new nodes",
        ("resource.partition",),
        f"variables.makes && has(object.resource.partition) ? ['{_PARTITION}'] : []",
        lambda case: [_PARTITION] if case.settings.node_provider != "byo" and case.workspace.resource.partition else [],
        needs="settings",
    ),
    Rule(
        "V12 retired GPU size, refused",
        _SIZES,
        f"{_setting('retiredSizes', 'warn')} == 'refuse' ? variables.sizes.filter(s,"
        " variables.retired[?s.lowerAscii()].orValue('9') <= variables.day)"
        f".map(s, variables.sized + ': ' + {quote('s')} + ' {_GONE}') : []",
        _gone,
        needs="settings",
        error=errors.UnsupportedGPUError,
    ),
)
