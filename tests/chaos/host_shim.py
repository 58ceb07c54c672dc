"""host_shim.c before a daemon, and what it is told."""
import mmap, os, struct, subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


class Shim:
    """Of one daemon: start it with `env`."""

    def __init__(self, rig, name):
        self.path, self.library = os.path.join(rig.dir, name + '.orders'), os.path.join(rig.dir, 'host_shim.so')
        if not os.path.exists(self.library):
            subprocess.run(['cc', '-O1', '-Wall', '-Werror', '-shared', '-fPIC', '-o', self.library, os.path.join(HERE, 'host_shim.c'), '-ldl'], check=True)
        with open(self.path, 'wb') as f:
            f.truncate(4096)
        with open(self.path, 'r+b') as f:
            self.orders = mmap.mmap(f.fileno(), 4096)

    @property
    def env(self):
        return {'LD_PRELOAD': self.library, 'SUNDOG_SHIM': self.path}

    def shift(self, seconds):
        self.orders[0:8] = struct.pack('q', seconds * 1000000000)

    def fail(self, folder, error):
        """Every sync under `folder` fails from now on; error 0: none does any more."""
        self.orders[12:524] = folder.encode().ljust(512, b'\0')
        self.orders[8:12] = struct.pack('i', error)

    def failed(self):
        """What was asked for while it could only fail: lines of "call path"."""
        with open(self.path + '.calls') as f:
            return f.read().splitlines()
