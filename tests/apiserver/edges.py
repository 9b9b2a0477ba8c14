"""Values on both sides of the rules' edges, by the field that they are for; `generating` makes Workspaces with them."""

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
BAD_IMAGES = [
    "a.io/Upper:1",
    "a//b",
    "a.io/b:",
    "a.io/b@sha256:12",
    "a.io/-b",
    "UPPER",
    "a:b:c",
    "a.io/b_",
    "a..b/c",
    "https://a/B",
]
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
VOLUMES = [{"persistentVolumeClaim": {"claimName": "data"}}, {"nfs": {"server": "s", "path": "/"}}]
CHECKPOINTS = [None, {}, {"destination": "None"}, {"destination": "Output"}, {"intervalSeconds": 60}]
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


def pod(**spec):
    return {"spec": {"containers": [{"name": "c", "image": "a.io/b:1"}], **spec}}


def adapter(number, **more):
    source = {"name": f"a{number}", "image": IMAGES[number % len(IMAGES)]}
    return {"source": source, "strength": STRENGTHS[number % len(STRENGTHS)], **more}


def _annotation(key, *values):
    return [{f"kaito.sh/{key}" if "/" not in key else key: value} for value in values]


_ANY = {  # what the schema lets pass: (path, values), each about one rule
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
    "V11": ("resource.partition", [{"mode": "mig", "profile": "1g.10gb"}, {"mode": "accelerator", "count": 2}]),
}

ANNOTATIONS = {
    "serve": (
        "metadata.annotations",
        _annotation("serve", "yes", "", " False ", "\u2003true\u3000", "TR\u00dcE"),
    ),
    "lb": (
        "metadata.annotations",
        _annotation("enablelb", "True ", "true", "True", "TRU\u00ca", "tRUE", "  TRUE", "FALSE"),
    ),
    "lb value": ("metadata.annotations", _annotation("enablelb", "1", "yes", "x" * 100, 'a"b\\c\n\t\a')),
    "secret": ("metadata.annotations", _annotation("api-key-secret", "keys", " Ke.ys ", "", "a b", "-x", "x" * 254)),
    "claim": ("metadata.annotations", _annotation("weights-cache", "models", "my models")),
    "other secret": ("metadata.annotations", _annotation("tracking-secret", "a/b", "wandb")),
    "family": ("metadata.annotations", _annotation("node-image-family", "windows", " AzureLinux ", "ubunt\u212a")),
    "runtime": ("metadata.annotations", _annotation("runtime", "vllm", " VLLM", "", "other")),
    "idle run": ("metadata.annotations", _annotation("run-benchmark", "true")),
    "idle class": ("metadata.annotations", _annotation("node-class-name", "x")),
    "mode": ("metadata.annotations", _annotation("performance-mode", "turbo", "throughput", "Balanced")),
    "mode bad": ("metadata.annotations", _annotation("performance-mode", "turbo", "")),
    "strange": ("metadata.annotations", [{"kaito.sh/Enable_LB": "", "x.kaito.sh/y": ""}, {"kaito.sh/w": "v"}]),
    "known": ("metadata.annotations", [{"kaito.sh/upgrade-start-time": "", "notkaito.sh/y": "", "kaito.io/z": ""}]),
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
_LARGE = _preset("qwen2.5-coder-32b-instruct", "phi-3-medium-4k-instruct", "falcon-40b", "falcon-7b", "phi-4")
_LARGEST = _preset("gpt-oss-120b", "llama-3.3-70b-instruct", "llama-2-70b")
_GATED = _preset("llama-3.1-8b-instruct", "Gemma-3-4b-instruct", "llama-2-7b")
_TINY = {"instanceType": "Standard_NC4as_T4_v3", "labelSelector": {}}
_BYPASS = _annotation("bypass-resource-checks", "", "false")

POLICY = {
    "any": _ANY,
    "inference": {
        "V20": ("inference.preset", _UNKNOWN),
        "hub": ("inference.preset", _preset("some-team/Some.Model_1B")),
        "V23": ("inference.preset", _preset("ministral-3-3b-instruct", "Qwen/Qwen3-8B-AWQ")),
        "V26": ("inference.preset", _GATED),
        "V26 token": ("inference.preset", _preset("llama-3.1-8b-instruct", presetOptions={"modelAccessSecret": "s"})),
        "V13": (("resource", [_TINY]), ("inference.preset", _LARGE)),
        "V13 largest": ("inference.preset", _LARGEST),
        "V13 bypassed": (("resource", [_TINY]), ("inference.preset", _LARGE), ("metadata.annotations", _BYPASS)),
        "V21": ("inference.preset", _preset("phi-2", "microsoft/PHI-2")),
        "V37": ("inference.adapters", [[{"source": {"name": "x", "image": image}}] for image in BAD_IMAGES]),
    },
    "template": {
        "containers": ("inference.template", [pod(containers=value) for value in ([], None, "x", [1], {}, [None])]),
        "no spec": ("inference.template", [{}, {"spec": None}, {"spec": "x"}, {"metadata": {"a": None}}]),
        "hostPath": ("inference.template", [pod(volumes=[{"name": "a", "hostPath": value}]) for value in ({}, "", 0)]),
        "second": ("inference.template", [pod(volumes=[{"emptyDir": {}}, {"hostPath": {"path": "/"}}])]),
        "V37": ("inference.template", [pod(containers=[{"image": image}, {}]) for image in (*BAD_IMAGES, "x" * 801)]),
        "V37 init": ("inference.template", [pod(initContainers=[{"image": a}]) for a in (*BAD_IMAGES, *IMAGES, 1)]),
        "none": ("inference.template", [pod(volumes=value) for value in (None, {}, [1], [{"hostPath": None}])]),
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
        "V13": (("resource", [_TINY]), ("tuning.preset", _LARGE)),
        "V13 largest": ("tuning.preset", _LARGEST),
        "V13 bypassed": (("resource", [_TINY]), ("tuning.preset", _LARGE), ("metadata.annotations", _BYPASS)),
        "V21": ("tuning.preset", _preset("phi-2", "microsoft/PHI-2")),
    },
}
_CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
RULES = {  # the CRD's own
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
        "unique": ("inference.adapters", [[adapter(1), adapter(1)], [adapter(1), adapter(2), adapter(1)]]),
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
        "empty adapter": ("inference.adapters", [[{"source": {"name": "a", "volumeSource": {"emptyDir": {}}}}]]),
        "strength": (
            "inference.adapters",
            [[{"source": {"name": "a", "image": "b"}, "strength": value}] for value in BAD_STRENGTHS],
        ),
    },
    "template": {"adapters": ("inference.adapters", [[adapter(1)]])},
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
        "read-only output": (
            "tuning.output",
            [{"volumeSource": {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}}],
        ),
        "lost output": (
            "tuning.output",
            [{"volumeSource": {kind: {}}} for kind in ("emptyDir", "secret", "ephemeral")],
        ),
        "no checkpoint": ("tuning.checkpoint", [{"destination": "None", "intervalSeconds": 60}]),
        "empty input": ("tuning.input", [{"volumeSource": {"emptyDir": {}}}]),
        "options": (
            "inference",
            [{"preset": {"name": "phi-3-mini-4k-instruct", "presetOptions": {"modelAccessSecret": "s"}}}],
        ),
        "private": ("tuning.preset.accessMode", ["private"]),
        "method": ("tuning.method", ["full", "qlora ", "QLORA", "\u024blora", ""]),
    },
}
