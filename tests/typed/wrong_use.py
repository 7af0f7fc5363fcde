"""Mistakes that a type checker finds; each line that ends in `# wrong` and no other."""

from remote_ckpt import RemoteModelCheckpoint, Run, Transfer, find_runs, load_best

RemoteModelCheckpoint("run/{epoch}.weights.h5", resume="newest")  # wrong
RemoteModelCheckpoint("run/{epoch}.weights.h5", on_error="ignore")  # wrong
RemoteModelCheckpoint("run/{epoch}.weights.h5", keep_best="three")  # wrong
RemoteModelCheckpoint("run/{epoch}.weights.h5", spool="folder")  # wrong
Transfer(bandwidth=1e6)  # wrong
Run("run", storage_options="anon")  # wrong
Run("run").best.score  # wrong
Run("run").find(2.5)  # wrong
Run("run").writer("{epoch}.weights.h5", mode="lowest")  # wrong
Run("run").writer("{epoch}.weights.h5", keep_best="three")  # wrong
Run("run").writer("{epoch}.weights.h5", keep_beast=3)  # wrong
load_best(object(), "run", storage_optoins={})  # wrong
find_runs("runs", signing_key=3)  # wrong
