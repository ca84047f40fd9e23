"""The Vagrantfile as Vagrant itself reads it: machines, providers, boxes and provisioners."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent
STORY = "porttrace lab scenario serialized-logins"
MACHINES = {
    "debian12": "cloud-image/debian-12",
    "debian13": "cloud-image/debian-13",
    "ubuntu2404": "cloud-image/ubuntu-24.04",
}
# Vagrant's own classes, asked without a provider being there. `home` is made by it.
OUTLINE = """
require "json"
require "vagrant"

# VirtualBox's own are words for VBoxManage.
def size(config)
  return [config.cpus, config.memory] unless config.respond_to?(:customizations)

  words = config.customizations.map(&:last)
  %w[--cpus --memory].map { |each| Integer(words.find { |word| word[2] == each }.last) }
end

def outline(file, name, provider)
  vm = file.machine_config(name, provider, nil, nil, false)[:config].vm
  {
    box: vm.box, box_url: vm.box_url, folders: vm.synced_folders,
    provisioners: vm.provisioners.map do |one|
      { name: one.name, type: one.type, run: one.run, inline: one.config.inline,
        privileged: one.config.privileged }
    end,
    size: size(vm.get_provider_config(provider)),
  }
end

begin
  file = Vagrant::Environment.new(cwd: ARGV[0], home_path: ARGV[1]).vagrantfile
  answer = file.machine_names.to_h do |name|
    options = file.machine_names_and_options[name]
    found = ARGV[2..].to_h { |each| [each, outline(file, name, each.to_sym)] }
    [name, { primary: options[:primary], autostart: options[:autostart], providers: found }]
  end
  puts JSON.generate(answer)
rescue StandardError => e
  abort e.message
end
"""

needs_ruby = pytest.mark.skipif(shutil.which("ruby") is None, reason="needs ruby: apt ruby")


def ruby(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run ruby with a clean set of porttrace's settings and those given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PORTTRACE_")}
    return subprocess.run(
        ["ruby", *arguments], capture_output=True, text=True, check=False, env={**kept, **environ}
    )


def vagrant_is_here() -> bool:
    """Whether ruby finds Vagrant as a library, as Debian packages it."""
    return shutil.which("ruby") is not None and not ruby("-e", 'require "vagrant"').returncode


needs_vagrant = pytest.mark.skipif(not vagrant_is_here(), reason="needs Vagrant: apt vagrant")


@pytest.fixture(scope="module")
def providers() -> list[str]:
    """Return the documented providers that this Vagrant knows; libvirt's is a plugin."""
    plugins = subprocess.run(["vagrant", "plugin", "list"], capture_output=True, text=True)
    return ["virtualbox", *(["libvirt"] if "vagrant-libvirt" in plugins.stdout else [])]


def outline(home: Path, providers: list[str], **environ: str) -> dict[str, Any]:
    """Return what Vagrant makes of the Vagrantfile with these settings."""
    done = ruby("-e", OUTLINE, str(CHECKOUT), str(home), *providers, **environ)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@needs_ruby
def test_its_syntax() -> None:
    done = ruby("-wc", str(CHECKOUT / "Vagrantfile"))
    assert (done.stdout, done.stderr) == ("Syntax OK\n", "")


@needs_vagrant
def test_vagrant_validates_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=CHECKOUT, env={**os.environ, "VAGRANT_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


@needs_vagrant
def test_three_machines_and_one_of_them_starts(tmp_path: Path, providers: list[str]) -> None:
    machines = outline(tmp_path, providers)
    assert {
        name: {each["box"] for each in found["providers"].values()}
        for name, found in machines.items()
    } == {name: {box} for name, box in MACHINES.items()}
    assert [name for name, found in machines.items() if found["primary"]] == ["debian12"]
    assert [name for name, found in machines.items() if found["autostart"]] == ["debian12"]
    for found in machines.values():
        for each in found["providers"].values():
            assert each["box_url"] is None
            assert each["size"] == [2, 2048]


@needs_vagrant
def test_the_checkout_is_copied_without_what_was_built(
    tmp_path: Path, providers: list[str]
) -> None:
    for found in outline(tmp_path, providers).values():
        for each in found["providers"].values():
            (folder,) = each["folders"].values()
            assert (folder["hostpath"], folder["guestpath"]) == (".", "/vagrant")
            assert folder["type"] == "rsync"
            assert {".venv/", "build/"} <= set(folder["rsync__exclude"])


@needs_vagrant
def test_the_story_runs_only_when_it_is_asked_for(tmp_path: Path, providers: list[str]) -> None:
    for found in outline(tmp_path, providers).values():
        for each in found["providers"].values():
            setup, story = each["provisioners"]
            assert (setup["name"], setup["type"], setup["run"]) == ("setup", "shell", None)
            assert setup["inline"] == "exec /vagrant/scripts/provision"
            assert setup["privileged"] is True
            assert (story["name"], story["type"], story["run"]) == ("story", "shell", "never")
            assert story["inline"] == f"exec {STORY}"
            assert story["privileged"] is False


@needs_vagrant
def test_the_environment_names_boxes_and_sizes(tmp_path: Path, providers: list[str]) -> None:
    box = tmp_path / "local.box"
    box.touch()
    machines = outline(
        tmp_path,
        providers,
        PORTTRACE_BOX_DEBIAN12="our/box",
        PORTTRACE_BOX_URL_DEBIAN13=str(box),
        PORTTRACE_BOX_URL_UBUNTU2404="https://boxes.example/ubuntu.json",
        PORTTRACE_BOX_UBUNTU2404="our/ubuntu",
        PORTTRACE_CPUS="3",
        PORTTRACE_MEMORY_MIB="1024",
    )
    found = {
        (name, each["box"], (each["box_url"] or [""])[0], *each["size"])
        for name, machine in machines.items()
        for each in machine["providers"].values()
    }
    expected = {
        ("debian12", "our/box", "", 3, 1024),
        ("debian13", "porttrace/debian13", f"file://{box}", 3, 1024),
        ("ubuntu2404", "our/ubuntu", "https://boxes.example/ubuntu.json", 3, 1024),
    }
    assert found == expected


@needs_vagrant
def test_an_empty_setting_is_none(tmp_path: Path, providers: list[str]) -> None:
    empty = {"PORTTRACE_BOX_DEBIAN12": "", "PORTTRACE_BOX_URL_DEBIAN12": "", "PORTTRACE_CPUS": ""}
    assert outline(tmp_path, providers, **empty) == outline(tmp_path, providers)


@needs_vagrant
def test_the_setting_of_one_machine_leaves_the_others(tmp_path: Path, providers: list[str]) -> None:
    machines = outline(tmp_path, providers, PORTTRACE_BOX_DEBIAN12="our/box")
    boxes = {name: found["providers"]["virtualbox"]["box"] for name, found in machines.items()}
    assert boxes == {**MACHINES, "debian12": "our/box"}


def test_the_story_of_the_documentation_is_the_one_that_is_run() -> None:
    told = (CHECKOUT / "docs" / "vagrant.md").read_text()
    assert f"vagrant up && vagrant ssh -c '{STORY}'" in told
    assert "vagrant provision --provision-with story" in told
