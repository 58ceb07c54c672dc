"""one_broker.py DIR: a broker until TERM; prints its bootstrap address and this process's pid. Two shards, so that every
client meets partitions and groups on another thread than its connection's; SUNDOG_SHARDS for another number."""
import os, signal, sys
from site_rig import Rig

rig = Rig(sites=['east'], dir=sys.argv[1], broker={'sundog.shards': os.environ.get('SUNDOG_SHARDS', '2')})
rig.brokers['east'].start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # what is waited for must be blocked, or it kills
print(rig.bootstrap('east'), os.getpid(), flush=True)
signal.sigwait([signal.SIGTERM])
code = rig.brokers['east'].stop()
sys.exit(0 if code == 0 else 1)
