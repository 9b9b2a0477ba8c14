"""Workspaces for the agreement of CEL and Python: half of them sound, the others mutated near the rules' edges."""

import copy

from hypothesis import strategies as st

from tests import making

SIZES = ["Standard_NC24ads_A100_v4", "standard_nc48ads_a100_v4", "Standard_NC80adis_H100_v5", "g5.4xlarge"]
OLD_SIZES = ["Standard_NC6s_v3", "Standard_NC12s_v3", "STANDARD_ND6s", "Standard_NP10s"]
PRESETS = ["phi-3-mini-4k-instruct", "Phi-4-Mini-Instruct", "microsoft/Phi-3-mini-128k-instruct", "phi-2", "mistral-7b"]
IMAGES = [
    "team.azurecr.io/a:1",
    "team/a",
    "a",
    "Host:5000/x/y__z.w--v:Tag_1.2",
    f"a.io/b@sha256:{'0a' * 32}",
    "ACR_REPO_HERE.azurecr.io/NAME_HERE:0.0.1",
    "localhost:80/a",
]
BAD_IMAGES = ["a.io/Upper:1", "a//b", "a.io/b:", "a.io/b@sha256:12", "a.io/-b", "UPPER", "a:b:c", "a.io/b_", "a..b/c"]
URLS = [
    "https://example.com/a.parquet?download=true",
    "HTTP://user@host.example.com:8443/x#y",
    "http://10.1.2.3/ä",
    "http://[fd00::1]:80",
    "https://a_b.example.com.",
]
BAD_URLS = [
    "ftp://example.com/a",
    "https:///a",
    "example.com",
    "http://localhost/a",
    "http://a.LOCALHOST:80",
    "http://127.0.0.1",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://1.2.3.04/",
    "http://169.254.169.254/meta",
    "http://metadata.google.internal./",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://[1:2]/",
    "http://u:p@example.com/",
    "http://ex\u0430mple.com/",
    "http://a b/",
    "http://example.com/a b",
    "http://-a.com",
    "http://a..b/",
    "http://a:123456/",
    "http://a@b@c/",
    "http://example.com\\@localhost/",
    "\u212attp://example.com/",
    "https://" + "a." * 200 + "com",
    "http://example.com/\n",
]
VOLUMES = [{"persistentVolumeClaim": {"claimName": "data"}}, {"emptyDir": {}}, {"nfs": {"server": "s", "path": "/"}}]
STRENGTHS = ["0", "1", "1.0", "0.5", ".5", "1.", "+1", "1e-1", "00.5", "0.", "1.00"]
BAD_STRENGTHS = [
    "1.1",
    "-0.1",
    "",
    " 1",
    "1 ",
    "x",
    "1e1",
    "0x1",
    "\uff11",
    "\u0661",
    "1.0.0",
    "2",
    "NaN",
    "1e-0",
    "+",
    ".",
]
LABELS = [{"app": "a"}, {"a.example.com/b": "C_1.x"}, {"a": ""}, {"kaito.sh/workspace": "x", "b": "c"}]
BAD_LABELS = [
    {"a b": "c"},
    {"-a": "c"},
    {"a": "-"},
    {"A.com/x": "y"},
    {"a": "ä"},
    {"a": "x" * 64},
    {"": ""},
    {"x" * 64: ""},
]
RESERVED = [{"kaito.sh/workspace": "x"}, {"kaito.sh/ragengine": "a", "karpenter.kaito.sh/inferenceset": "b"}]
GONE = object()


def _pod(**spec):
    return {"spec": {"containers": [{"name": "c", "image": "a.io/b:1"}], **spec}}


def _adapter(number, **more):
    source = {"name": f"a{number}", "image": IMAGES[number % len(IMAGES)]}
    return {"source": source, "strength": STRENGTHS[number % len(STRENGTHS)], **more}


def _annotation(key, *values):
    return [{f"kaito.sh/{key}" if "/" not in key else key: value} for value in values]


ANY_POLICY = {  # what the schema lets pass: (path, values), each about one rule
    "V9": ("resource.labelSelector", [{"matchLabels": labels} for labels in BAD_LABELS]),
    "V9 long": (
        "resource.labelSelector",
        [{"matchExpressions": [{"key": "a/b/c", "operator": "In", "values": ["x"]}]}],
    ),
    "V10": ("resource.labelSelector", [{"matchLabels": labels} for labels in RESERVED]),
    "V12": ("resource.instanceType", ["Standard_NC7s_v9", "x", "a/b", "standard--nc"]),
    "V12 several": ("resource", [{"instanceTypes": ["Standard_NC7s_v9", "y"], "labelSelector": {}}]),
    "V12 old": ("resource.instanceType", OLD_SIZES),
    "V12 some old": ("resource", [{"instanceTypes": [*SIZES[:1], *OLD_SIZES], "labelSelector": {}}]),
    "V4": ("resource.instanceType", [GONE, ""]),
    "serve": (
        "metadata.annotations",
        _annotation("serve", "yes", "", " False ", "\u2003true\u3000", "\x1ctrue", "TR\u00dcE"),
    ),
    "lb": ("metadata.annotations", _annotation("enablelb", "1", "True ", "x" * 100, 'a"b\\c\n\t\a')),
    "family": ("metadata.annotations", _annotation("node-image-family", "windows", " AzureLinux ", "ubunt\u212a")),
    "idle": ("metadata.annotations", _annotation("runtime", "vllm", "")),
    "idle run": ("metadata.annotations", _annotation("run-benchmark", "true")),
    "idle class": ("metadata.annotations", _annotation("node-class-name", "x")),
    "mode": ("metadata.annotations", _annotation("performance-mode", "turbo", "throughput", "Balanced")),
    "mode bad": ("metadata.annotations", _annotation("performance-mode", "turbo", "")),
    "local": ("metadata.annotations", _annotation("use-local-weights", "true", "TRUE ")),
    "local bad": ("metadata.annotations", _annotation("use-local-weights", "yes", "")),
    **{
        f"refused {key}": ("metadata.annotations", _annotation(key, "x", "Disabled", "true", ""))
        for key in (
            "model-streaming",
            "model-mirror-storage-class",
            "streaming-service-account",
            "inference.kaito.sh/static-model-mirror",
            "inference.kaito.sh/stream-datarefs-url",
            "inference.kaito.sh/stream-identity-client-id",
            "inference.kaito.sh/stream-source-type",
        )
    },
}


def _preset(*names, **options):
    return [{"name": name, **options} for name in names]


_UNKNOWN = _preset("phi-9", "a--b/c", "a/b..c", "x/y/z", "PHI-3", "qwen--qwen3-8b-awq", "gpt")
_LARGE = _preset("gpt-oss-120b", "qwen2.5-coder-32b-instruct", "phi-3-medium-4k-instruct", "google/gemma-4-31B-it")
_GATED = _preset("llama-3.1-8b-instruct", "Gemma-3-4b-instruct", "llama-2-7b")
_TINY = {"instanceType": "Standard_NC4as_T4_v3", "labelSelector": {}}
_BYPASS = _annotation("bypass-resource-checks", "", "false")

POLICY = {
    "inference": {
        "V20": ("inference.preset", _UNKNOWN),
        "hub": ("inference.preset", _preset("some-team/Some.Model_1B")),
        "V23": ("inference.preset", _preset("ministral-3-3b-instruct", "Qwen/Qwen3-8B-AWQ")),
        "V26": ("inference.preset", _GATED),
        "V26 token": ("inference.preset", _preset("llama-3.1-8b-instruct", presetOptions={"modelAccessSecret": "s"})),
        "V21": ("inference.preset", _preset("phi-2", "microsoft/PHI-2")),
        "V13": ("inference.preset", _LARGE),
        "V13 size": ("resource", [_TINY]),
        "bypass": ("metadata.annotations", _BYPASS),
        "V37": ("inference.adapters", [[{"source": {"name": "x", "image": image}}] for image in BAD_IMAGES]),
        "V11": ("resource.partition", [{"mode": "mig", "profile": "1g.10gb"}, {"mode": "accelerator", "count": 2}]),
    },
    "template": {
        "containers": ("inference.template", [_pod(containers=value) for value in ([], None, "x", [1], {}, [None])]),
        "no spec": ("inference.template", [{}, {"spec": None}, {"spec": "x"}, {"metadata": {"a": None}}]),
        "hostPath": ("inference.template", [_pod(volumes=[{"name": "a", "hostPath": value}]) for value in ({}, "", 0)]),
        "second": ("inference.template", [_pod(volumes=[{"emptyDir": {}}, {"hostPath": {"path": "/"}}])]),
        "none": ("inference.template", [_pod(volumes=value) for value in (None, {}, [1], [{"hostPath": None}])]),
    },
    "tuning": {
        "V38": ("tuning.input", [{"urls": [url]} for url in BAD_URLS]),
        "V38 some": ("tuning.input", [{"urls": [URLS[0], *BAD_URLS[at : at + 3], URLS[0]]} for at in range(9)]),
        "V37 in": ("tuning.input", [{"image": image} for image in BAD_IMAGES]),
        "V37 out": ("tuning.output.image", BAD_IMAGES),
        "V37 weights": ("tuning.preset.presetOptions", [{"image": image} for image in BAD_IMAGES]),
        "V37 digest": ("tuning.output.image", [f"a.io/b@sha256:{'0a' * 32}", f"a@sha512:{'0b' * 64}", "a@b"]),
        "V20": ("tuning.preset", _UNKNOWN),
        "A4": ("tuning.preset", _preset("gpt-oss-20b", "Gemma-3-4b-Instruct", "ministral-3-3b-instruct")),
        "V26": ("tuning.preset", _GATED),
        "V13": ("tuning.preset", _LARGE),
        "V13 size": ("resource", [_TINY]),
        "bypass": ("metadata.annotations", _BYPASS),
    },
}
_CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
_RULES = {  # the CRD's own
    "any": {
        "name": ("metadata.name", ["A", "1a", "a.b", "a" * 64, "-a", "\u0430", "a_b"]),
        "sizes": ("resource", [{"instanceType": "a", "instanceTypes": ["b"], "labelSelector": {}}]),
        "partition": (
            "resource.partition",
            [{"mode": "mig"}, {"mode": "mig", "profile": "1g.10gb", "count": 1}, {"mode": "accelerator"}],
        ),
        "neither": ("", [GONE]),
    },
    "inference": {
        "exactly": ("inference", [{}, {"preset": {"name": "phi-4"}, "template": {}}]),
        "private": ("inference.preset.accessMode", ["private"]),
        "unique": ("inference.adapters", [[_adapter(1), _adapter(1)], [_adapter(1), _adapter(2), _adapter(1)]]),
        "source": (
            "inference.adapters",
            [[{"source": {"name": "a"}}], [{"source": {"name": "a", "image": "b", "volumeSource": _CLAIM}}]],
        ),
        "volume": (
            "inference.adapters",
            [
                [{"source": {"name": "a", "volumeSource": {**_CLAIM, "emptyDir": {}}}}],
                [{"source": {"name": "a", "volumeSource": {}}}],
            ],
        ),
        "hostPath": ("inference.adapters", [[{"source": {"name": "a", "volumeSource": {"hostPath": {"path": "/"}}}}]]),
        "strength": (
            "inference.adapters",
            [[{"source": {"name": "a", "image": "b"}, "strength": value}] for value in BAD_STRENGTHS],
        ),
    },
    "template": {"adapters": ("inference.adapters", [[_adapter(1)]])},
    "tuning": {
        "model": ("inference", [{"preset": {"name": "phi-4"}}, {"template": {}}]),
        "own name": (
            "inference",
            [{"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [{"source": {"name": "w", "image": "a"}}]}],
        ),
        "count": ("resource.count", [2, 100]),
        "input": (
            "tuning.input",
            [
                {},
                {"urls": []},
                {"image": ""},
                {"image": "a", "urls": ["https://a.b"]},
                {"image": "a", "volumeSource": _CLAIM},
            ],
        ),
        "letters": ("tuning.input.urls", [["https://a.b/" + "x" * 1000] * 61]),
        "output": (
            "tuning.output",
            [{}, {"image": ""}, {"image": "a", "imagePushSecret": "s", "volumeSource": _CLAIM}],
        ),
        "secret": ("tuning.output.imagePushSecret", ["", GONE]),
        "private": ("tuning.preset.accessMode", ["private"]),
        "method": ("tuning.method", ["full", "qlora ", "QLORA", "\u024blora", ""]),
    },
}
LONG = "x" * 100_000
ODD = [
    None,
    "",
    0,
    -1,
    1.0,
    1.5,
    True,
    [],
    {},
    "1",
    [None],
    {"a": None},
    LONG,
    "\u0430bc",
    "a\u0000b",
    [[]],
    2**63,
    1e400 * 0,
]
ODD = [value for value in ODD if value == value]


def _set(body, path, value):
    """Set a field, making what stands above it; GONE takes it away."""
    *above, last = path.split(".", 1) if path.startswith("metadata.annotations") else path.split(".")
    target = body
    for part in above:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            return
    if last == "annotations":
        target.setdefault(last, {}).update(value)
    elif value is GONE:
        target.pop(last, None)
    else:
        target[last] = copy.deepcopy(value)


@st.composite
def _sound(draw, kind):
    body = making.tuning() if kind == "tuning" else making.inference()
    body = {**copy.deepcopy(body), "apiVersion": f"kaito.sh/{draw(st.sampled_from(['v1alpha1', 'v1beta1']))}"}
    body["metadata"] = {"name": "w", "annotations": {}}
    body["resource"] = {
        "instanceType": draw(st.sampled_from(SIZES[:3])),
        "labelSelector": {"matchLabels": draw(st.sampled_from(LABELS))},
    }
    if kind == "template":
        body["inference"] = {"template": _pod(volumes=draw(st.sampled_from([[], [{"name": "a", "emptyDir": {}}]])))}
    elif kind == "inference":
        body["inference"]["preset"]["name"] = draw(st.sampled_from(PRESETS))
        body["inference"]["adapters"] = [_adapter(number) for number in range(draw(st.integers(0, 10)))]
    else:
        several = st.lists(st.sampled_from(URLS), min_size=1, max_size=64)
        given = [
            {"urls": draw(several)},
            {"image": draw(st.sampled_from(IMAGES))},
            {"volumeSource": draw(st.sampled_from(VOLUMES))},
        ]
        body["tuning"]["input"] = draw(st.sampled_from(given))
        body["tuning"]["method"] = draw(st.sampled_from(["lora", "qlora", "QLoRA"]))
    return body


def _paths(value, prefix=""):
    """Every field below, by its path; lists by their first element."""
    found = []
    for key, inner in value.items():
        path = f"{prefix}{key}"
        found.append(path)
        if isinstance(inner, dict) and key != "annotations":
            found += _paths(inner, f"{path}.")
    return found


@st.composite
def _chaos(draw, body):
    paths = [path for path in _paths(body) if path not in {"apiVersion", "kind", "metadata", "metadata.annotations"}]
    path = draw(
        st.sampled_from(
            [*paths, "resource.bogus", "inference.config", "resource.count", "tuning.config", "tuning.serve"]
        )
    )
    _set(body, path, draw(st.sampled_from([*ODD, GONE])))


@st.composite
def workspaces(draw):
    """One Workspace as it would be sent."""
    kind = draw(st.sampled_from(["inference", "tuning", "inference", "tuning", "template"]))
    body = draw(_sound(kind))
    what = draw(st.sampled_from(["sound"] * 9 + ["policy"] * 5 + ["rules"] * 5 + ["chaos"] * 3))
    if what == "chaos":
        draw(_chaos(body))
        if draw(st.booleans()) and isinstance(body.get("inference"), dict):
            body["inference"]["adapters"] = [_adapter(number) for number in range(draw(st.sampled_from([11, 500])))]
    elif what != "sound":
        table = {**ANY_POLICY, **POLICY[kind]} if what == "policy" else {**_RULES["any"], **_RULES[kind]}
        own = POLICY[kind] if what == "policy" else _RULES[kind]
        names = st.sampled_from([*table, *own, *own])
        for name in draw(st.lists(names, min_size=1, max_size=4 if what == "policy" else 2, unique=True)):
            path, values = table[name]
            if not path:
                del body["inference" if "inference" in body else "tuning"]
                return body
            _set(body, path, draw(st.sampled_from(values)))
    return body
