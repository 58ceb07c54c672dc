"""one_broker.py DIR: a broker until TERM; prints its bootstrap address and this process's pid."""
import os, signal, sys
from site_rig import Rig

rig = Rig(sites=['east'], dir=sys.argv[1])
rig.brokers['east'].start()
print(rig.bootstrap('east'), os.getpid(), flush=True)
signal.sigwait([signal.SIGTERM])
code = rig.brokers['east'].stop()
sys.exit(0 if code == 0 else 1)
