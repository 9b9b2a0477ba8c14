"""The table of all rules that the admission policies have; the CRD's own are in `api`."""

from kaito_hera.admission import addresses, facts, images, sizes, words
from kaito_hera.admission.rule import Rule
from kaito_hera.api import annotations

_VOLUMES = (
    "object.?tuning.?input.?volumeSource.hasValue() || object.?tuning.?output.?volumeSource.hasValue()"
    " || object.?inference.?adapters.orValue([]).exists(a, has(a.source.volumeSource))"
    f" || '{annotations.CACHE}' in object.metadata.?annotations.orValue({{}})"
)
MAY_MAKE_PODS = "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()"

AUTHOR = Rule(
    "author of a pod",
    (
        "inference.template",
        "tuning.input.volumeSource",
        "tuning.output.volumeSource",
        "inference.adapters",
        f"metadata.annotations[{annotations.CACHE}]",
    ),
    f"(has(object.inference) && has(object.inference.template) || {_VOLUMES})"
    " ? ['inference.template, volumeSource, kaito.sh/weights-cache: these make a pod as you write it,"
    " and ' + request.userInfo.username"
    " + ' may not create pods in namespace '"
    " + request.namespace + ': take them out, or have somebody apply this who may']"
    " : []",
    None,
    needs="author",
)
"""Pods are made with the operator's rights: nobody is to get one that he could not make himself.

A message cannot look at rights, so the policy asks for them beside this.
"""

RULES: tuple[Rule, ...] = (
    *addresses.RULES,
    *images.RULES,
    *words.RULES,
    *facts.RULES,
    *sizes.WITH_TABLES,
    *sizes.WITH_SETTINGS,
    AUTHOR,
)
