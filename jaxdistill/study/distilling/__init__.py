"""One call that distils: a few arguments are compiled into a config.

  call.py: `distill`, which compiles, runs and exports.
  sources.py: which data set a path or a name stands for.
  teachers.py, students.py: which sections of a config the two networks are.
  compiling.py: the config, with defaults that suit the data.
  fine_tuning.py: how a teacher of other classes learns the labels.
  announcement.py: what is printed before the training.
  outcome.py: what the call returns.

Everything else is done by the plan of the config, as for any other config.
"""
