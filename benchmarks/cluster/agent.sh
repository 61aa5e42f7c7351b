#!/bin/sh
# agent.sh [-x] ADDRESS COMMAND: what mpiexec calls in place of ssh.  Runs the command on the host
# with this address, which sees no other host's shared memory and processes.
[ "$1" != -x ] || shift
host=host${1##*.}
shift
exec ip netns exec "$host" unshare --ipc --pid --fork --kill-child --mount-proc \
    sh -c 'mount -t tmpfs tmpfs /dev/shm && eval "$*"' sh "$@"
