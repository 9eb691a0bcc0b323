"""What `kanets info` and `kanets doctor` say."""

import json
import re
from pathlib import Path

from kanets import attention, cli, zoo
from kanets.cli.doctor import EXTRAS


def call(capsys, *arguments):
    code = cli.main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info_tells_all_of_an_entry(capsys):
    code, out, _ = call(capsys, "info", "kanet_qkv_cifar10")
    [entry] = zoo.list_models("kanet_qkv_cifar10")
    assert code == 0
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert facts["parameters"] == f"{entry.parameters:,}"
    assert facts["licence"] == entry.licence
    assert facts["evaluate_command"] == entry.evaluate_command
    _, out, _ = call(capsys, "info", "kanet_qkv_cifar10", "--json")
    assert json.loads(out)["value"] == entry.value


def test_info_of_nothing_names_the_entries(capsys):
    code, _, err = call(capsys, "info", "resnet")
    assert code == 1
    assert "kanet_qkv_cifar10" in err and "Received: model='resnet'" in err


def test_doctor_says_what_there_is(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    found = {}
    for line in out.splitlines():
        found |= json.loads(line)
    assert code == 0
    assert found["keras"][0].isdigit() and found["self-test"].startswith("pass")
    assert found["zoo"].startswith(f"{len(zoo.list_models())} entries")
    assert found["devices"]


def test_doctor_says_how_to_get_what_is_missing(capsys, monkeypatch):
    from kanets.cli import doctor

    monkeypatch.setitem(doctor.EXTRAS, "no-such-package", "viz")
    _, out, _ = call(capsys, "doctor")
    [line] = [li for li in out.splitlines() if li.startswith("no-such-package")]
    assert line.endswith('missing: pip install "kanets[viz]"')


def test_doctor_fails_where_numbers_are_wrong(capsys, monkeypatch):
    monkeypatch.setattr(attention, "kao_qkv", lambda x: 0 * x)
    code, _, err = call(capsys, "doctor")
    assert code == 1 and "must be equal to its formula" in err


def test_list_tells_of_mechanisms(capsys):
    code, out, _ = call(capsys, "list", "--attention")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == attention.names()
    _, out, _ = call(capsys, "list", "kao_*", "--attention", "--json")
    [kv] = [each for each in json.loads(out) if each["name"] == "kao_kv"]
    assert (kv["mode"], len(json.loads(out))) == ("kv", 3)
    _, out, _ = call(capsys, "list", "x*", "--attention")
    assert out == "There is no mechanism that 'x*' names.\n"
    code, _, err = call(capsys, "list", "--attention", "--hub")
    assert code == 1 and "Received: no --task, --hub True" in err


def test_doctor_knows_what_commands_ask_for():
    """Every extra that an error of the package names."""
    asked = set()
    for path in (Path(__file__).parents[2] / "kanets").rglob("*.py"):
        asked |= set(re.findall(r"kanets\[(\w+)\]", path.read_text("utf-8")))
    assert len(asked) > 5
    assert asked <= set(EXTRAS.values())
