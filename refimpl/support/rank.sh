#!/bin/sh
# rank.sh COMMAND ...: run one rank, and say so if a signal kills it.
#
# A launcher then kills all other ranks in no time, and says nothing of the first or names
# another: MPICH and Intel look who has died when all have.  This is the parent of one rank, so
# it knows.  The rank writes where it is into descriptor 8, a file that has no name any more
# (refimpl/run/place.py).

trap : HUP INT TERM USR1 USR2 # they are the rank's, which a launcher sends them, too

if file=$(mktemp "${TMPDIR:-/tmp}/refimpl.XXXXXX" 2>/dev/null); then
    exec 8<>"$file"
    rm -f "$file"
    export REFIMPL_PLACE=8
fi

exec 7>&2 2>/dev/null # what the shell itself would say of it goes nowhere
(exec "$@" 2>&7 7>&-)
code=$?

signal=
[ $code -le 128 ] || signal=$(kill -l $((code - 128)))
case $signal in
    ILL | TRAP | ABRT | BUS | FPE | KILL | SEGV | SYS | XCPU | XFSZ) ;;
    *) exit $code ;; # it left, or was asked to
esac
# If the launcher has killed it, this is killed here; with ULFM it kills nobody, and the others
# hear of this death when this shell is dead, too.
[ -n "${OMPI_MCA_mpi_ft_enable:-}" ] || sleep 0.1

for rank in "${PMI_RANK:-}" "${PMIX_RANK:-}" "${OMPI_COMM_WORLD_RANK:-}" "${SLURM_PROCID:-}" \
    "${PALS_RANKID:-}" "${ALPS_APP_PE:-}" 0; do
    [ -z "$rank" ] || break
done
where=
[ -z "${REFIMPL_PLACE:-}" ] || read -r where <&8
why=
[ "$signal" != KILL ] || why=", perhaps for want of memory"
printf 'refimpl: rank %s on %s was killed by signal %s (SIG%s%s)%s\n' \
    "$rank" "$(uname -n)" $((code - 128)) "$signal" "$why" "${where:+ $where}" >&7

# A launcher that sees the end first drops what it has not yet read.
[ -n "${OMPI_MCA_mpi_ft_enable:-}" ] || sleep 0.2
# shellcheck disable=SC3045 # POSIX has no ulimit -c; every sh has
ulimit -c 0
kill -s "$signal" $$
exit $code
