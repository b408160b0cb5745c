"""Two machines that share neither disk, nor address, nor host name, as Linux makes them: namespaces of network, mounts and names.

Each has its own disk at the store's path. A server that speaks S3's protocol stands at a third address. ``nox -s apart`` runs this; it
needs root, ``ip`` and ``unshare``, Ray, s3fs and moto, and is skipped where one of them is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.execute import Run
from bench.pipeline import merge
from bench.running import graphs_of, load_registry
from bench.store import Store
from bench.suite import load_suite
from tests.engine import suite_content, write_suite

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "10.213.77"
BRIDGE = "cbb-bridge"
MACHINES = (1, 2)
MOUNTED = 'hostname "$1"; mount --bind "$2" "$3"; cd "$4"; shift 4; exec "$@"'
"""What a process does before it is one of a machine: name, disk, store's path, folder; then its command."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")),
        reason="needs root, ip and unshare: nox -s apart",
    ),
]


def name_of(machine: int) -> str:
    return f"cbb-machine{machine}"


def system(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class World:
    """Where the two machines have their things.

    Attributes:
        folder: seen by both: the suite, logs, each one's files of Ray.
        environment: of every process.
    """

    folder: Path
    environment: dict[str, str]

    @property
    def store(self) -> Path:
        """The path at which each machine has its own disk."""
        return self.folder / "store"

    def disk(self, machine: int) -> Path:
        return self.folder / f"disk{machine}"

    def on(self, machine: int, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a machine, and wait for it."""
        name = name_of(machine)
        places = (name, str(self.disk(machine)), str(self.store), str(self.folder))
        inside = ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "sh", "-ec", MOUNTED, "sh", *places]
        return subprocess.run(
            [*inside, *command], capture_output=True, text=True, check=False, env=self.environment, cwd=self.folder
        )

    def ray(self, machine: int, *told: str) -> None:
        """Start a node of one processor."""
        more = ("--num-cpus", "1", "--node-ip-address", f"{NETWORK}.{machine}", "--temp-dir")
        command = (
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *told,
            *more,
            str(self.folder / f"ray{machine}"),
        )
        done = self.on(machine, *command)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the suite from the first machine."""
        places = ("--store", str(self.store), "--results", str(self.folder / "results"), "--ray", f"{NETWORK}.1:6379")
        return self.on(1, sys.executable, "-m", "bench.cli", "run", str(self.folder / "toy.yaml"), *places, *more)


def tear_down() -> None:
    """End every process of the machines, and the machines."""
    for machine in MACHINES:
        while pids := system(
            "ip", "netns", "pids", name_of(machine)
        ).stdout.split():  # some start others while they are ended
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        system("ip", "netns", "del", name_of(machine))
        system("ip", "link", "del", f"cbb-here{machine}")  # at once; with its namespace it goes some time later
    system("ip", "link", "del", BRIDGE)


def wire() -> None:
    """Make the machines' networks, and one that joins them to this one."""
    commands = [["link", "add", BRIDGE, "type", "bridge"], ["addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE]]
    commands += [["link", "set", BRIDGE, "up"]]
    for n in MACHINES:
        name, here, there = name_of(n), f"cbb-here{n}", f"cbb-there{n}"
        commands += [["netns", "add", name], ["link", "add", there, "type", "veth", "peer", "name", here]]
        commands += [["link", "set", there, "netns", name], ["link", "set", here, "master", BRIDGE, "up"]]
        commands += [["-n", name, "addr", "add", f"{NETWORK}.{n}/24", "dev", there]]
        commands += [["-n", name, "link", "set", device, "up"] for device in (there, "lo")]
        commands += [["-n", name, "route", "add", "default", "via", f"{NETWORK}.254"]]
    for command in commands:
        done = system("ip", *command)
        if done.returncode != 0:
            pytest.skip(f"no networks can be made here: ip {' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def world() -> Iterator[World]:
    for module in ("ray", "s3fs", "moto.server"):
        pytest.importorskip(module, reason="nox -s apart")
    from moto.server import ThreadedMotoServer

    # Paths of sockets are short, shorter than those of tmp_path.
    folder = Path(tempfile.mkdtemp(prefix="cbb-"))
    tear_down()
    server = None
    try:
        wire()
        server = ThreadedMotoServer(ip_address=f"{NETWORK}.254", port=0, verbose=False)
        server.start()
        port = server.get_host_and_port()[1]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "AWS_ENDPOINT_URL": f"http://{NETWORK}.254:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # One token for all: who does not have it is refused.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
        }
        made = World(folder, environment)
        for place in (made.store, *map(made.disk, MACHINES)):
            place.mkdir()
        yield made
    finally:
        tear_down()
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in (root / "entries").rglob("*") if p.is_file()}


def test_two_machines_apart_make_what_one_process_makes(world: World) -> None:
    # Long enough for both to have something to do at once.
    path = write_suite(world.folder, training=suite_content()["training"] | {"epochs": 40})
    world.ray(1, "--head", "--port", "6379", "--include-dashboard", "false")
    world.ray(2, "--address", f"{NETWORK}.1:6379")

    refused = world.run()
    assert refused.returncode == 2, refused.stderr
    assert f"node {name_of(2)} does not see the store" in refused.stderr

    made = world.on(1, sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('bucket')")
    assert made.returncode == 0, made.stderr
    done = world.run("--mirror", "s3://bucket/trial")
    assert done.returncode == 0, done.stderr
    assert "2 ok" in done.stderr
    assert not list(world.store.iterdir()), "a disk of this machine, and of neither of the two"

    suite = load_suite(path)
    registry = load_registry(suite, [])
    stages = merge(graphs_of(suite, registry, {}))
    alone = Run(stages, Store(world.folder / "alone"), lambda event: None).here(registry, show=False)
    assert alone.done == stages.keys()
    one, two = (bytes_of(world.disk(n)) for n in MACHINES)
    assert one.items() & two.items() == {(name, one[name]) for name in one.keys() & two.keys()}
    assert one | two == bytes_of(world.folder / "alone")
    # Each computed: what a machine noted itself, the driver's among it, tells of its own stages.
    computed = {path.stem for path in (world.disk(2) / "timings").iterdir()}
    assert computed
    assert computed < stages.keys()
    assert {path.stem for path in (world.disk(1) / "timings").iterdir()} == stages.keys(), (
        "and the driver knows it of all"
    )
