"""A PostgreSQL server of the tests' own, from the machine's binaries, in a folder that is thrown away."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


class PostgresServer:
    """Runs until `stop`. Not durable on purpose (fsync off); accepts anyone, on loopback only."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # PostgreSQL refuses to run as root: then it runs as the user that Debian's package made for it.
        self._user = "postgres" if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="pointsman-postgres-"))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self.port = _free_port()
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--locale=C")
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "start", "-w", "-t", "60", "-l", str(self._folder / "log"), "-o", options)

    @property
    def url(self) -> str:
        """URL of the maintenance database."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        # Not to pipes: the server inherits them and a reader would wait for its end.
        with (self._folder / "output").open("w") as output:
            done = subprocess.run(
                command,
                check=False,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
            )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {(self._folder / 'output').read_text()}")


def find_binaries() -> Path | None:
    """The newest installed PostgreSQL's programs, as Debian lays them out, or those on PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
