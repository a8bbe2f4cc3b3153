"""Ctrl-C while PyTorch and the other packages are imported ends a command at once and without a
traceback; a command imports this first. `run_command` takes over when the packages are there.

A signal that is ignored (nohup) or handled already stays so.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
