"""A worker that finds out what it may do where it runs. Standard library only.

A message is a Python expression. The answer is its value as JSON, or `{"error": "<type>: <text>"}`.
"""

import ctypes
import json
import os
import signal
import socket
import stat
import sys
import time

from mozart_worker import Worker

LIBC = ctypes.CDLL(None, use_errno=True)


def read(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def walk():
    """All folders and files but those that the kernel makes up."""
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
        yield folder, [os.path.join(folder, name) for name in files]


def writable():
    """Every folder in which a file can be made, and every file outside of these that can be written to."""
    folders, others = [], []
    for folder, files in walk():
        probe = os.path.join(folder, ".probe")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
            os.unlink(probe)
            folders.append(folder)
        except OSError:
            regular = [path for path in files if stat.S_ISREG(os.lstat(path).st_mode)]
            others += [path for path in regular if os.access(path, os.W_OK)]
    return {"folders": sorted(folders), "files": sorted(others)}


def holders(text):
    """Every file that this user can read and that holds a text; of the kernel's, those about processes other than this one."""
    needle, found = text.encode(), []
    files = [path for _, files in walk() for path in files]
    for process in (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
        for folder, folders, names in os.walk(f"/proc/{process}"):
            files += [os.path.join(folder, name) for name in names]
            # Each thread once more would be the same; the other way into the file system is tried apart.
            folders[:] = [name for name in folders if name not in ("task", "root", "cwd")]
    for path in files:
        try:
            # A pipe or a terminal may have nothing to read for ever.
            if stat.S_ISREG(os.stat(path).st_mode) and needle in open(path, "rb").read():
                found.append(path)
        except (OSError, ValueError):
            pass
    return sorted(found)


def trace(pid):
    """Attaches to a process as a debugger does."""
    PTRACE_SEIZE = 0x4206
    if LIBC.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "attached"


def sockets():
    """Every socket in the file system."""
    return [path for _, files in walk() for path in files if stat.S_ISSOCK(os.lstat(path).st_mode)]


def processes():
    """How many processes can be started, up to 200."""
    children = []
    try:
        while len(children) < 200:
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except BlockingIOError:
        pass
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


def become(uid):
    os.setuid(uid)
    return os.getuid()


def hello(host, port):
    """What the broker says to a client without credentials."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b'CONNECT {"verbose":true}\r\nPING\r\n')
        said = b""
        while part := connection.recv(4096):
            said += part
    return said.decode().splitlines()[1:]


def answer(turn):
    try:
        said = eval(turn.text)
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    turn.say(json.dumps(said))


Worker(answer).run()
