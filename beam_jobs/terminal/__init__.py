"""The command line: one program, `terrapair`, for the verbs of all packages.

- `program`: the table of verbs, the lazy group and the entry point. Read it first.
- `session`: what a verb gets: where to print, how much, and whether as JSON.
- `options`: the decorator that makes a function a verb, and options that verbs share.
- `inputs`: checks that input files exist, before anything heavy is imported.
- `progress`: progress bars on a terminal, plain lines elsewhere.
- `failures`: any exception -> one line and an exit code.
- `machine`: errors of the machine, such as a full disk; `failures` asks it.
- `quiet`: keeps TensorFlow, Beam, TFX and Google's clients from printing.
- `prerequisites`: the Python version and the optional groups of dependencies.

Command modules of `beam_jobs` and `pipeline` import this room; jobs never do. Nothing
here imports TensorFlow, Beam or TFX.
"""
