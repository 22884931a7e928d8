# Which Python runs the project. To be sourced; sets PYTHON, or ends with exit status 2 and the reason.
#
# The active virtual or conda environment if there is one, else .venv in the repository.

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

refuse() { # headline, then further lines
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 2
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

supported() { case "$1" in 3.10 | 3.11 | 3.12 | 3.13) return 0 ;; *) return 1 ;; esac; }

active_python() { # the python of the active environment, or nothing
    local folder="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
    [ -z "$folder" ] || printf '%s/bin/python' "$folder"
}

find_environment() {
    PYTHON="$(active_python)"
    [ -n "$PYTHON" ] || PYTHON="$REPOSITORY/.venv/bin/python"
    [ -x "$PYTHON" ] || refuse "there is no Python environment yet" \
        "missing: ${PYTHON#"$REPOSITORY"/}" \
        "do:      bash test.sh in the repository root (makes .venv), or activate your own environment"
    supported "$(python_version "$PYTHON")" || refuse "Python $(python_version "$PYTHON") is not supported" \
        "found:   $PYTHON" "needs:   Python 3.10, 3.11, 3.12 or 3.13"
}

make_environment() {
    [ -n "$(active_python)" ] && return
    local candidate version seen="" folder="$REPOSITORY/.venv" made=""
    [ -x "$folder/bin/python" ] && return
    if [ ! -e "$folder" ] && [ ! -L "$folder" ]; then
        made=yes
    elif [ ! -f "$folder/pyvenv.cfg" ]; then
        refuse ".venv is in the way: it is no virtual environment" "do:      move it away"
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        version="$(python_version "$candidate")" || continue
        if supported "$version"; then
            "$candidate" -m venv "$folder" || {
                [ -z "$made" ] || rm -rf "$folder" # only what was begun just now
                refuse "Python $version cannot make a virtual environment" \
                    "do:      install its venv package (Debian, Ubuntu: apt install python$version-venv)"
            }
            return
        fi
        seen="$seen $version"
    done
    refuse "no supported Python was found${seen:+ (found:$seen)}" "needs:   Python 3.10, 3.11, 3.12 or 3.13"
}

# install FILE...: the packages of these requirement files, unless the very same were installed before.
install() {
    make_environment
    find_environment
    local start=$SECONDS stamp
    stamp="$("$PYTHON" -c 'import sys, hashlib; print(sys.prefix + "/.ptx-" + hashlib.sha256(b"".join(open(f, "rb").read() for f in sys.argv[1:])).hexdigest()[:16])' "$@")"
    if [ ! -e "$stamp" ]; then
        echo "Installing the packages of: $* (once; several minutes and some GB)"
        local files=() file
        for file in "$@"; do files+=(-r "$file"); done
        "$PYTHON" -m pip install --quiet --disable-pip-version-check "${files[@]}" || refuse \
            "the packages could not be installed" "do:      see pip's message above"
        touch "$stamp" 2>/dev/null || true
    fi
    echo "installation: $((SECONDS - start)) s"
}
