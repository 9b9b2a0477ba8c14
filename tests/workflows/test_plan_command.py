"""`kaito-hera plan` as people and scripts meet it. plans/ holds what it prints; `make golden` writes it anew."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflows import __main__ as command
from workflows.outlook import Outlooks

ROOT = Path(__file__).parents[2]
PLANS = Path(__file__).parent / "plans"
OWN = sorted(PLANS.glob("*.yaml"))
EXAMPLES = [file for file in sorted((ROOT / "examples").glob("*.yaml")) if not file.name.endswith(".workflow.yaml")]
NEVER_LOADED = ("torch", "hera", "kubernetes", "azure", "requests", "ray", "transformers")


@pytest.fixture
def kaito_hera(capsys):
    """The command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        parsed = command._parser().parse_args([str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as end:
            parsed.run(parsed)
        return end.value.code, *capsys.readouterr()

    return run


def process(*arguments, stdin=""):
    line = [sys.executable, "-m", "workflows", "plan", *map(str, arguments)]
    return subprocess.run(line, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("manifest", [*EXAMPLES, *OWN], ids=lambda file: file.stem)
def test_a_plan_is_the_one_that_is_kept(kaito_hera, manifest):
    _, shown, _ = kaito_hera("plan", manifest)
    assert shown == (PLANS / f"{manifest.stem}.txt").read_text(), "make golden, and read the difference"


def test_brought_nodes_are_left_not_given_back():
    fall_back = (PLANS / "fall-back.yaml").read_text()
    brought = yaml.safe_dump_all(
        one
        for one in yaml.safe_load_all(fall_back)
        if one["kind"] == "Workspace"  # the settings' default: byo
    )
    first = process("-", stdin=brought).stdout.splitlines()[0]
    assert first == "team/tune-phi-4: tune phi-4 (lora), then leave your nodes"


def test_no_plan_is_kept_without_its_manifest():
    assert {file.stem for file in PLANS.glob("*.txt")} == {file.stem for file in (*EXAMPLES, *OWN)}


@pytest.mark.parametrize("manifest", [*EXAMPLES, *OWN], ids=lambda file: file.stem)
def test_the_exit_code_says_whether_it_can_work(kaito_hera, manifest):
    code, shown, _ = kaito_hera("plan", manifest, "-o", "json")
    works = [plan["works"] for plan in json.loads(shown)["plans"]]
    errors = [bool(plan["errors"]) for plan in json.loads(shown)["plans"]]
    assert code == (0 if all(works) else 10)
    assert [not bad for bad in errors] == works


@pytest.mark.parametrize("manifest", OWN, ids=lambda file: file.stem)
def test_json_and_yaml_are_the_documented_structure(kaito_hera, manifest):
    as_json, as_yaml = (kaito_hera("plan", manifest, "-o", output)[1] for output in ("json", "yaml"))
    plans = Outlooks.model_validate_json(as_json)
    assert json.loads(plans.model_dump_json(by_alias=True)) == yaml.safe_load(as_yaml) == json.loads(as_json)


def test_the_users_manifests_can_work_where_the_platform_team_says_so(kaito_hera, tmp_path):
    (tmp_path / "gpuCapabilityCheck").write_text("warn")
    for manifest in EXAMPLES:
        filled = tmp_path / f".{manifest.name}"
        filled.write_text(re.sub(r"[A-Z_]+_HERE", "mine", manifest.read_text()))
        code, shown, _ = kaito_hera("plan", filled, "--settings", tmp_path)
        assert code == 0, shown


def test_a_pipe_a_config_file_and_a_settings_file(tmp_path):
    settings, workspace, config = (PLANS / "three-replicas.yaml").read_text().split("---")[:3]
    for name, text in (("settings", settings), ("config", config)):
        (tmp_path / f"{name}.yaml").write_text(text)
    whole = process(
        "-", "--settings", tmp_path / "settings.yaml", "--config", tmp_path / "config.yaml", stdin=workspace
    )
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout == (PLANS / "three-replicas.txt").read_text()
    alone = process("-", "--settings", tmp_path / "settings.yaml", stdin=workspace)
    assert "ConfigMap team/long is not among what was read" in alone.stdout
    assert alone.returncode == 0


def test_a_region_has_prices_of_its_own(kaito_hera):
    manifest = PLANS / "too-small.yaml"
    usd = [
        json.loads(kaito_hera("plan", manifest, "-o", "json", *region)[1])["plans"][0]["candidates"][0]["usdPerHour"]
        for region in ([], ["--region", "eastus"], ["--region", "northeurope"], ["--region", "West Europe"])
    ]
    assert usd == [0.658, 0.526, 0.526, 0.658]


@pytest.mark.parametrize(
    ("region", "words"),
    [("mars", "name one of Azure's, for example westeurope"), ("westeuropa", "did you mean one of: westeurope")],
)
@pytest.mark.parametrize("command", [["plan", "-"], ["sizes"], ["presets"]], ids=lambda command: command[0])
def test_a_region_that_nobody_knows_is_a_usage_error(kaito_hera, capsys, command, region, words):
    with pytest.raises(SystemExit) as end:
        kaito_hera(*command, "--region", region)
    assert end.value.code == 2
    assert f"argument --region: '{region}' is not known; {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "has no kind"),
        ("kind: Workspace: x", "is no YAML"),
        ("kind: Secret\nmetadata: {name: a}", "has no Workspace, it has Secret a"),
        ("", "has no Workspace, it has nothing at all"),
        ("kind: ConfigMap\nmetadata: {name: mine}", "has no Workspace, it has ConfigMap mine"),
        ("[" * 10_000, "is no YAML"),
        ('kind: "\\ud800"', "half of a character"),
        ('{kind: ConfigMap, data: {"\\udfff": x}}', "half of a character"),
        ("a: &a [*a]\nkind: Workspace", "unfolds to"),
        ("kind: Workspace\nbinary: !!binary aGVsbG8=", "has a bytes"),
    ],
)
def test_what_is_no_manifest_is_a_usage_error_in_one_line(text, words):
    end = process("-", stdin=text)
    assert (end.returncode, end.stdout) == (2, "")
    assert words in end.stderr
    assert len(end.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.yaml"], "nothing.yaml: cannot be read"),
        ([PLANS / "too-small.yaml", "--settings", "nothing"], "nothing: cannot be read"),
        (
            [PLANS / "too-small.yaml", "--settings", PLANS / "brought-nodes.yaml"],
            "has no ConfigMap kaito-hera-settings",
        ),
        ([PLANS / "too-small.yaml", "--config", "nothing"], "nothing: cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_usage_error_in_one_line(arguments, words):
    end = process(*arguments)
    assert end.returncode == 2
    assert words in end.stderr
    assert len(end.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "text"), [("nodeProvider", "aws"), ("allowedPrivateCIDRs", "[10.0.0.0/33]")])
def test_a_setting_with_a_slip_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    end = process(PLANS / "too-small.yaml", "--settings", tmp_path)
    assert end.returncode == 2
    assert f"setting {name}: " in end.stderr
    assert text.strip("[]") in end.stderr


def test_what_is_not_looked_at_is_named_without_what_a_terminal_obeys(kaito_hera):
    workspace = (PLANS / "too-small.yaml").read_text()
    end = process("-", stdin=f'{workspace}\n---\n{{kind: "Secret\\e[2J", metadata: {{name: s}}}}\n')
    assert "not looked at: Secret\\x1b[2J s" in end.stderr


def test_the_readme_shows_what_is_printed(kaito_hera, tmp_path):
    text = (ROOT / "README.md").read_text()
    (tmp_path / "workspace.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    command, _, sample = text.split("## Ask before you apply")[1].split("```\n")[1].partition("\n")
    prompt, _, *arguments, name = command.split()
    assert prompt == "$"
    _, shown, _ = kaito_hera(*arguments, tmp_path / name)
    kept = sample.split("...\n")
    assert len(kept) == 3
    assert all(part in shown for part in kept)


def test_bytes_that_are_no_text_are_a_usage_error():
    line = [sys.executable, "-m", "workflows", "plan", "-"]
    end = subprocess.run(line, input=b"kind: \xff\xfe", capture_output=True, cwd=ROOT, check=False)
    assert end.returncode == 2
    assert end.stderr.startswith(b"kaito-hera: stdin: cannot be read")


def test_whoever_reads_may_have_seen_enough():
    line = [sys.executable, "-m", "workflows", "presets", "-o", "json"]
    ours, theirs = os.pipe()
    os.close(ours)
    end = subprocess.run(line, stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(theirs)
    assert (end.returncode, end.stderr) == (0, b"")


def test_letters_that_a_terminal_does_not_have_are_left_out():
    line = [sys.executable, "-m", "workflows", "plan", str(OWN[0])]
    seen = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    end = subprocess.run(line, capture_output=True, cwd=ROOT, check=False, env=seen)
    assert b"Traceback" not in end.stderr
    assert end.stdout.decode("cp1252").splitlines()[0] == OWN[0].with_suffix(".txt").read_text().splitlines()[0]


@pytest.mark.parametrize(("where", "code", "said"), [
    (">&-", 0, ""),
    (">/dev/full", 1, "kaito-hera: [Errno 28] No space left on device\n"),
])  # fmt: skip
def test_where_nothing_can_be_printed_there_is_no_traceback(where, code, said):
    line = f"exec {sys.executable} -m workflows presets {where}"
    end = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (end.returncode, end.stderr) == (code, said)


def test_what_is_not_looked_at_is_said(kaito_hera, tmp_path):
    (tmp_path / "all.yaml").write_text("kind: Secret\nmetadata: {name: push}\n---\n" + OWN[0].read_text())
    _, shown, said = kaito_hera("plan", tmp_path / "all.yaml")
    assert said == f"note: {tmp_path / 'all.yaml'}: not looked at: Secret push\n"
    assert shown == OWN[0].with_suffix(".txt").read_text()


def test_planning_loads_neither_a_model_library_nor_a_clusters_client():
    code = (
        "import sys; from workflows.__main__ import main; sys.argv = ['kaito-hera', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    for arguments in (["plan", PLANS / "fall-back.yaml"], ["presets", "phi-4"], ["sizes", "--fits", "phi-4"]):
        line = [sys.executable, "-c", code, *map(str, arguments)]
        end = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
        assert end.stdout
        assert "pydantic" in end.stderr.split()
        assert not set(NEVER_LOADED) & set(end.stderr.split())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lines_are_as_wide_as_the_terminal_and_coloured(columns):
    shown = on_terminal(columns, "plan", PLANS / "fall-back.yaml")
    plain = re.sub(r"\x1b\[\d+m", "", shown)
    assert max(map(len, plain.splitlines())) <= columns
    assert shown != plain
    assert "\x1b" not in on_terminal(columns, "plan", PLANS / "fall-back.yaml", NO_COLOR="1")
    for size in ("Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4", "Standard_NC6s_v3"):
        assert f"|{size} " in plain, "each kind of GPU has its bars"


def on_terminal(columns, *arguments, **environment):
    """What the command writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    line = [sys.executable, "-m", "workflows", *map(str, arguments)]
    child = subprocess.Popen(line, stdout=theirs, cwd=ROOT, env=surroundings)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    child.wait()
    return shown.decode().replace("\r\n", "\n")
