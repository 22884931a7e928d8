"""All stages from films to report: check every input, say what the whole costs, run what is not done.

    bash run.sh                        on GPU 0; bash run.sh 1, cpu and 0,1 as in bash train.sh
    bash run.sh --check                what it will cost, a stage and in all; nothing is run
    bash run.sh --status               what is done, running, failed, and how long the rest will take
    bash run.sh cpu --preset demo --siim PATH --ntuh PATH     flags go to the stages that have them

Before anything is run, the inputs of all stages are checked. Each stage is then run by its own script; one
that is done is kept. Interrupted, or when a stage has failed, the same command goes on. Films, weights and
results lie where the scripts themselves put them; the plan and what each stage said, in run/.
"""

if __name__ == "__main__":  # all imports are below: the process that times steps imports this file again
    import sys
    from pathlib import Path

    # in the place of this file's own folder, or `statistics` would be ours, not Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.run(__doc__))
